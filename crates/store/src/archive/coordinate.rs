//! Coordinates of nodes (type 6): a list, of which the original writes one element per record.

use model::{Coordinate, NodeCoordinate, Text};
use wire::msgpack::{Decoder, Encoder};

use super::parts::{list, text};
use super::refusal::{Fault, Refusal};

/// In the order in which the original declares them.
const UPDATE_FIELDS: [&str; 2] = ["Node", "Coord"];
const COORDINATE_FIELDS: [&str; 4] = ["Vec", "Error", "Adjustment", "Height"];

pub(super) fn encode(out: &mut Vec<u8>, node: &[u8], coordinate: &Coordinate) {
    let mut out = Encoder::new(out);
    out.array_len(1).map_len(2);
    out.raw(b"Coord").map_len(4);
    out.raw(b"Adjustment").f64(coordinate.adjustment);
    out.raw(b"Error").f64(coordinate.error);
    out.raw(b"Height").f64(coordinate.height);
    out.raw(b"Vec").array_len(coordinate.vec.len());
    for part in &coordinate.vec {
        out.f64(*part);
    }
    out.raw(b"Node").raw(node);
}

pub(super) fn decode(bytes: &[u8]) -> Result<Vec<NodeCoordinate>, Refusal> {
    let mut decoder = Decoder::new(bytes);
    let batch = list(&mut decoder, "the batch", update)?.unwrap_or_default();
    decoder.finish()?;
    Ok(batch)
}

fn update(value: &mut Decoder<'_>) -> Result<NodeCoordinate, Refusal> {
    let mut node = Text::default();
    let mut coord = Coordinate::default();
    value.fields(&UPDATE_FIELDS, |value, field| {
        match field {
            0 => node = text(value)?,
            _ => coord = coordinate(value)?,
        }
        Ok::<_, Refusal>(())
    })?;
    if node.is_empty() {
        return Err(Refusal::Row {
            step: "failed restoring coordinate",
            fault: Fault::NoKey,
        });
    }
    Ok(NodeCoordinate { node, coord })
}

fn coordinate(value: &mut Decoder<'_>) -> Result<Coordinate, Refusal> {
    let mut coordinate = Coordinate::default();
    value.fields(&COORDINATE_FIELDS, |value, field| {
        match field {
            0 => {
                coordinate.vec = list(value, "Vec", |value| Ok(value.f64()?))?.unwrap_or_default();
            }
            1 => coordinate.error = value.f64()?,
            2 => coordinate.adjustment = value.f64()?,
            _ => coordinate.height = value.f64()?,
        }
        Ok::<_, Refusal>(())
    })?;
    Ok(coordinate)
}
