//! The two ways in which a server is asked: from within this process, and by other members. Both end in the same pipelines.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use model::{Answer, Command, Error, Operated, Operation, Question, Reply};
use rpc::{
    Answered, Backend, ByteStream, Hop, OperateOptions, ReadOptions, Refusal, Request, Response,
    RestoreOptions, Restored, Save, SaveOptions, Serve, WriteOptions,
};

use crate::core::Core;
use crate::{operate, read, restore, save, write};

/// The servers as seen from within one: a function call away.
pub(crate) struct InProcess(pub(crate) Arc<Core>);

impl Backend for InProcess {
    fn read(
        &self,
        question: Question,
        options: ReadOptions,
    ) -> BoxFuture<'static, Result<Answered<Answer>, Error>> {
        let core = Arc::clone(&self.0);
        Box::pin(async move {
            let answered = read::read(&core, Hop::First, question, options).await;
            answered.map_err(plain)
        })
    }

    fn write(
        &self,
        command: Command,
        options: WriteOptions,
    ) -> BoxFuture<'static, Result<Reply, Error>> {
        let core = Arc::clone(&self.0);
        Box::pin(async move {
            let reply = write::write(&core, Hop::First, command, options).await;
            reply.map_err(plain)
        })
    }

    fn save(&self, options: SaveOptions) -> BoxFuture<'static, Result<Save, Error>> {
        let core = Arc::clone(&self.0);
        Box::pin(async move {
            let save = save::save(&core, Hop::First, options).await;
            save.map_err(plain)
        })
    }

    fn restore(
        &self,
        options: RestoreOptions,
        archive: ByteStream,
    ) -> BoxFuture<'static, Result<Restored, Error>> {
        let core = Arc::clone(&self.0);
        Box::pin(async move {
            let restored = restore::restore(&core, Hop::First, options, archive).await;
            restored.map_err(plain)
        })
    }

    fn operate(
        &self,
        operation: Operation,
        options: OperateOptions,
    ) -> BoxFuture<'static, Result<Operated, Error>> {
        let core = Arc::clone(&self.0);
        Box::pin(async move {
            let operated = operate::operate(&core, Hop::First, operation, options).await;
            operated.map_err(plain)
        })
    }
}

/// Who asks first learns of no hops.
fn plain(refusal: Refusal) -> Error {
    match refusal {
        Refusal::NotLeader => Error::NoLeader,
        Refusal::Failed(error) => error,
    }
}

/// A server as other members ask it.
pub(crate) struct ForMembers(pub(crate) Arc<Core>);

impl Serve for ForMembers {
    fn serve(&self, hop: Hop, request: Request) -> BoxFuture<'static, Result<Response, Refusal>> {
        let core = Arc::clone(&self.0);
        match request {
            Request::Read(question, options) => Box::pin(async move {
                let answered = read::read(&core, hop, question, options).await;
                answered.map(Response::Read)
            }),
            Request::Write(command, options) => Box::pin(async move {
                let reply = write::write(&core, hop, command, options).await;
                reply.map(Response::Write)
            }),
            Request::Operate(operation, options) => Box::pin(async move {
                let operated = operate::operate(&core, hop, operation, options).await;
                operated.map(Response::Operate)
            }),
            Request::Ping => Box::pin(std::future::ready(Ok(Response::Ping))),
        }
    }

    fn save(&self, hop: Hop, options: SaveOptions) -> BoxFuture<'static, Result<Save, Refusal>> {
        let core = Arc::clone(&self.0);
        Box::pin(async move { save::save(&core, hop, options).await })
    }

    fn restore(
        &self,
        hop: Hop,
        options: RestoreOptions,
        archive: ByteStream,
    ) -> BoxFuture<'static, Result<Restored, Refusal>> {
        let core = Arc::clone(&self.0);
        Box::pin(async move { restore::restore(&core, hop, options, archive).await })
    }

    fn log_message(&self, message: Bytes) -> BoxFuture<'static, Bytes> {
        let core = Arc::clone(&self.0);
        Box::pin(async move { core.consensus.handle(message).await })
    }
}
