//! A fake cluster at the far end of a call.

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use rpc::{
    Backend as _, ByteStream, Hop, Refusal, Request, Response, RestoreOptions, Restored, Save,
    SaveOptions, Serve,
};

use crate::FakeCluster;

/// A server that answers as a [`FakeCluster`] was told to.
#[derive(Debug, Clone)]
pub struct Served(pub FakeCluster);

impl Serve for Served {
    fn serve(&self, _: Hop, request: Request) -> BoxFuture<'static, Result<Response, Refusal>> {
        let fake = self.0.clone();
        Box::pin(async move {
            let answered = match request {
                Request::Read(question, options) => {
                    fake.read(question, options).await.map(Response::Read)
                }
                Request::Write(command, options) => {
                    fake.write(command, options).await.map(Response::Write)
                }
                Request::Operate(operation, options) => fake
                    .operate(operation, options)
                    .await
                    .map(Response::Operate),
                Request::Ping => Ok(Response::Ping),
            };
            answered.map_err(Refusal::Failed)
        })
    }

    fn save(&self, _: Hop, options: SaveOptions) -> BoxFuture<'static, Result<Save, Refusal>> {
        let saved = self.0.save(options);
        saved.map(|save| save.map_err(Refusal::Failed)).boxed()
    }

    fn restore(
        &self,
        _: Hop,
        options: RestoreOptions,
        archive: ByteStream,
    ) -> BoxFuture<'static, Result<Restored, Refusal>> {
        let restored = self.0.restore(options, archive);
        restored
            .map(|restored| restored.map_err(Refusal::Failed))
            .boxed()
    }

    /// Echoes.
    fn log_message(&self, message: Bytes) -> BoxFuture<'static, Bytes> {
        Box::pin(std::future::ready(message))
    }
}
