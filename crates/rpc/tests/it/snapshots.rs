//! Snapshots on connections of their own.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use model::Error;
use rpc::{
    ByteStream, CallError, Calls as _, Hop, Refusal, RestoreOptions, SaveOptions, StreamError,
    byte_stream,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::member::{Listening, pool, server, until};

fn wish(token: &str) -> SaveOptions {
    SaveOptions {
        token: token.into(),
        ..SaveOptions::default()
    }
}

fn upload(token: &str) -> RestoreOptions {
    RestoreOptions {
        token: token.into(),
        ..RestoreOptions::default()
    }
}

async fn read(mut archive: ByteStream) -> Result<usize, StreamError> {
    let mut size = 0;
    while let Some(piece) = archive.next().await {
        size += piece?.len();
    }
    Ok(size)
}

#[tokio::test]
async fn a_snapshot_arrives_whole_or_says_so() {
    let listening = Listening::start().await;
    let pool = pool();
    let save = pool.save(&listening.server, Hop::First, wish("short"));
    let save = save.await.unwrap();
    assert_eq!(save.meta.index, 42);
    assert_eq!(read(save.archive).await, Ok(300_000));
    let save = pool.save(&listening.server, Hop::First, wish("bad"));
    let failed = read(save.await.unwrap().archive).await;
    assert_eq!(failed, Err(StreamError("the disk is gone".to_owned())));
    let refused = pool.save(&listening.server, Hop::First, wish("refused"));
    assert_eq!(
        refused.await.unwrap_err(),
        CallError::Refused(Refusal::Failed(Error::PermissionDenied))
    );
}

#[tokio::test]
async fn who_does_not_read_holds_up_who_writes() {
    let listening = Listening::start().await;
    let pool = pool();
    let pieces = || listening.member.0.pieces.load(Ordering::SeqCst);
    let mut save = pool
        .save(&listening.server, Hop::First, wish(""))
        .await
        .unwrap();
    save.archive.next().await.unwrap().unwrap();
    // Settles where sockets and queues are full, far below what an endless source could give.
    let (mut last, mut still) = (0, 0);
    until(|| {
        let now = pieces();
        still = if now == last { still + 1 } else { 0 };
        last = now;
        now > 0 && still == 20
    })
    .await;
    assert!(last < 1000, "{last} pieces of 100 kB");
    drop(save);
    // The source hears of it.
    until(|| std::sync::Arc::strong_count(&listening.member.0) == 2).await;
}

#[tokio::test]
async fn a_save_that_ends_with_its_pool_has_no_end() {
    let listening = Listening::start().await;
    let pool = pool();
    let mut save = pool
        .save(&listening.server, Hop::First, wish(""))
        .await
        .unwrap();
    save.archive.next().await.unwrap().unwrap();
    pool.shutdown().await;
    let error = read(save.archive).await.unwrap_err();
    assert_eq!(
        error,
        StreamError("it was cut off before its end".to_owned())
    );
}

#[tokio::test]
async fn a_stream_that_has_to_be_whole_says_once_that_it_is_not() {
    let (sender, mut stream) = byte_stream();
    let whole = sender.whole();
    assert!(whole.send(Ok(Bytes::from_static(b"half"))).await);
    drop(whole);
    assert!(stream.next().await.unwrap().is_ok());
    assert!(stream.next().await.unwrap().is_err());
    assert!(stream.next().await.is_none());

    let (sender, mut stream) = byte_stream();
    sender.whole().finish();
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn a_restore_is_answered_at_its_end() {
    let listening = Listening::start().await;
    let (sender, archive) = byte_stream();
    let restore = pool().restore(&listening.server, Hop::First, upload(""), archive);
    let feed = async {
        for size in [1, 65_536, 0, 65_537, 1_000_000] {
            assert!(sender.send(Ok(Bytes::from(vec![1; size]))).await);
        }
        drop(sender);
    };
    let (restored, ()) = tokio::join!(restore, feed);
    let size = 1 + 65_536 + 65_537 + 1_000_000;
    assert_eq!(restored.unwrap().skipped, [("bytes".to_owned(), size)]);
}

#[tokio::test]
async fn a_restore_may_be_answered_before_its_end() {
    let listening = Listening::start().await;
    let (sender, archive) = byte_stream();
    let restore = pool().restore(&listening.server, Hop::First, upload("early"), archive);
    let feed = async {
        // Endless: ends because nobody listens any more.
        while sender.send(Ok(Bytes::from(vec![1; 100_000]))).await {}
    };
    let (restored, ()) = tokio::join!(restore, feed);
    assert_eq!(
        restored.unwrap_err(),
        CallError::Refused(Refusal::Failed(Error::invalid("no archive at all")))
    );
}

#[tokio::test]
async fn a_source_that_fails_is_no_end() {
    let listening = Listening::start().await;
    let (sender, archive) = byte_stream();
    sender.send(Ok(Bytes::from_static(b"half"))).await;
    sender
        .send(Err(StreamError("the browser was closed".to_owned())))
        .await;
    drop(sender);
    let restored = pool().restore(&listening.server, Hop::First, upload(""), archive);
    assert_eq!(
        restored.await.unwrap_err(),
        CallError::Refused(Refusal::Failed(Error::invalid("the browser was closed")))
    );
}

/// Passes on what the first side sends, up to a byte, and all that the second sends.
async fn cut_after(near: TcpStream, to: std::net::SocketAddr, mut left: usize, near_first: bool) {
    let far = TcpStream::connect(to).await.unwrap();
    let (first, second) = if near_first { (near, far) } else { (far, near) };
    let (mut first_read, mut first_write) = first.into_split();
    let (mut second_read, mut second_write) = second.into_split();
    let counted = async {
        let mut buffer = vec![0; 1000];
        while left > 0 {
            let Ok(count @ 1..) = first_read.read(&mut buffer).await else {
                return;
            };
            let count = count.min(left);
            left -= count;
            if second_write.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = counted => {}
        _ = tokio::io::copy(&mut second_read, &mut first_write) => {}
    }
}

#[tokio::test]
async fn a_connection_that_is_cut_is_never_taken_for_the_end() {
    let listening = Listening::start().await;
    for cut in (0..300)
        .step_by(7)
        .chain([65_000, 100_000, 299_999, 300_000, 300_050])
    {
        for is_save in [true, false] {
            let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let through = server(proxy.local_addr().unwrap());
            let to = listening.server.address;
            let task = tokio::spawn(async move {
                let (near, _) = proxy.accept().await.unwrap();
                cut_after(near, to, cut, !is_save).await;
            });
            let pool = pool();
            if is_save {
                let whole = match pool.save(&through, Hop::First, wish("short")).await {
                    Ok(save) => read(save.archive).await.ok(),
                    Err(CallError::Broken(_)) => None,
                    Err(error) => panic!("{cut}: {error:?}"),
                };
                assert_eq!(whole, None, "{cut}");
            } else {
                let (sender, archive) = byte_stream();
                let restore = pool.restore(&through, Hop::First, upload(""), archive);
                let feed = async move {
                    for _ in 0..3 {
                        sender.send(Ok(Bytes::from(vec![1; 100_000]))).await;
                    }
                };
                let (restored, ()) = tokio::join!(restore, feed);
                assert!(restored.is_err(), "{cut}: {restored:?}");
            }
            task.await.unwrap();
        }
    }
}
