//! Bytes to values and back: MessagePack dialects, framing, checksums, the snapshot archive.
