//! Keys and values: `/v1/kv/`.

use bytes::Bytes;
use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use crate::path;
use crate::request::Question;
use crate::{Answer, Client, Error, QueryOptions, WriteOptions};

/// A key and all that is stored with it.
///
/// It is written as the original's client writes it, in this order of fields.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct KvPair {
    /// The key.
    pub key: String,
    /// When the key came into being.
    #[serde(default)]
    pub create_index: u64,
    /// When it last changed.
    #[serde(default)]
    pub modify_index: u64,
    /// How often the lock was taken.
    #[serde(default)]
    pub lock_index: u64,
    /// A number that the writer chose.
    #[serde(default)]
    pub flags: u64,
    /// The value; one that was never set is empty.
    #[serde(default, with = "crate::base64")]
    pub value: Bytes,
    /// The session that holds the key's lock; empty when nobody does.
    #[serde(default)]
    pub session: String,
}

/// A value to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvPut {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Bytes,
    /// A number of the writer's choice.
    pub flags: u64,
    /// What must hold for the write to happen.
    pub condition: PutCondition,
}

/// What must hold for a write to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutCondition {
    /// Nothing.
    Always,
    /// The key was last changed at this index; 0: it doesn't exist.
    Unchanged(u64),
    /// The key isn't locked by another session; this one takes the lock.
    Acquire(String),
    /// The key is locked by this session, which gives the lock back.
    Release(String),
}

/// What must hold for a deletion to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteCondition {
    /// Nothing.
    Always,
    /// The key was last changed at this index.
    Unchanged(u64),
}

/// One operation of a transaction.
#[derive(Debug, Serialize)]
struct Operation<'a> {
    #[serde(rename = "KV")]
    kv: Set<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Set<'a> {
    verb: &'static str,
    key: &'a str,
    value: String,
    flags: u64,
}

impl Client {
    /// One key, if it exists.
    ///
    /// # Errors
    /// When no answer came, or not the expected one.
    pub async fn kv_get(
        &self,
        key: &str,
        options: &QueryOptions,
    ) -> Result<Answer<Option<KvPair>>, Error> {
        let question = Question::new(Method::GET, key_path(key)?);
        let Answer { value, meta } = self.kv_read::<Vec<KvPair>>(question, options).await?;
        Ok(Answer {
            value: value.and_then(|pairs| pairs.into_iter().next()),
            meta,
        })
    }

    /// Every key with a prefix, in the order of the keys.
    ///
    /// # Errors
    /// When no answer came, or not the expected one.
    pub async fn kv_list(
        &self,
        prefix: &str,
        options: &QueryOptions,
    ) -> Result<Answer<Vec<KvPair>>, Error> {
        let question = Question::new(Method::GET, key_path(prefix)?).parameter("recurse", "");
        let Answer { value, meta } = self.kv_read(question, options).await?;
        Ok(Answer {
            value: value.unwrap_or_default(),
            meta,
        })
    }

    /// The names of the keys with a prefix, each cut after the first `separator` behind the prefix;
    /// with an empty separator all names, whole.
    ///
    /// # Errors
    /// When no answer came, or not the expected one.
    pub async fn kv_keys(
        &self,
        prefix: &str,
        separator: &str,
        options: &QueryOptions,
    ) -> Result<Answer<Vec<String>>, Error> {
        let mut question = Question::new(Method::GET, key_path(prefix)?).parameter("keys", "");
        if !separator.is_empty() {
            question = question.parameter("separator", separator);
        }
        let Answer { value, meta } = self.kv_read(question, options).await?;
        Ok(Answer {
            value: value.unwrap_or_default(),
            meta,
        })
    }

    /// Writes a value, and says whether its condition held.
    ///
    /// # Errors
    /// When no answer came, or not the expected one.
    pub async fn kv_put(&self, put: &KvPut, options: &WriteOptions) -> Result<bool, Error> {
        let mut question = Question::new(Method::PUT, key_path(&put.key)?)
            .parameters(options.parameters())
            .token(&options.token)
            .body(put.value.clone());
        if put.flags != 0 {
            question = question.parameter("flags", put.flags.to_string());
        }
        question = match &put.condition {
            PutCondition::Always => question,
            PutCondition::Unchanged(index) => question.parameter("cas", index.to_string()),
            PutCondition::Acquire(session) => question.parameter("acquire", session),
            PutCondition::Release(session) => question.parameter("release", session),
        };
        self.json(self.send_ok(question).await?).await
    }

    /// Writes several values in one transaction, whatever their conditions say, and says whether it went through:
    /// all of them are written or none.
    ///
    /// Servers take at most 64 values and half a MiB at once.
    ///
    /// # Errors
    /// When no answer came, or not the expected one.
    pub async fn kv_put_all(&self, puts: &[KvPut], options: &WriteOptions) -> Result<bool, Error> {
        let operations: Vec<Operation<'_>> = puts
            .iter()
            .map(|put| Operation {
                kv: Set {
                    verb: "set",
                    key: &put.key,
                    value: base64_simd::STANDARD.encode_to_string(&put.value),
                    flags: put.flags,
                },
            })
            .collect();
        let body = serde_json::to_vec(&operations).map_err(|why| Error::Decode(why.to_string()))?;
        let question = Question::new(Method::PUT, "/v1/txn")
            .parameters(options.parameters())
            .token(&options.token)
            .body(body);
        let response = self.send(question).await?;
        match response.status() {
            StatusCode::OK => self.bytes(response).await.map(|_| true),
            StatusCode::CONFLICT => self.bytes(response).await.map(|_| false),
            _ => Err(self.unexpected(response).await),
        }
    }

    /// Deletes a key, and says whether its condition held.
    ///
    /// # Errors
    /// When no answer came, or not the expected one.
    pub async fn kv_delete(
        &self,
        key: &str,
        condition: DeleteCondition,
        options: &WriteOptions,
    ) -> Result<bool, Error> {
        let mut question = Question::new(Method::DELETE, key_path(key)?)
            .parameters(options.parameters())
            .token(&options.token);
        if let DeleteCondition::Unchanged(index) = condition {
            question = question.parameter("cas", index.to_string());
        }
        self.json(self.send_ok(question).await?).await
    }

    /// Deletes every key with a prefix; all of them when it is empty.
    ///
    /// # Errors
    /// When no answer came, or not the expected one.
    pub async fn kv_delete_tree(&self, prefix: &str, options: &WriteOptions) -> Result<(), Error> {
        let question = Question::new(Method::DELETE, key_path(prefix)?)
            .parameters(options.parameters())
            .parameter("recurse", "")
            .token(&options.token);
        self.send_ok(question).await.map(drop)
    }

    /// `None` where nothing was found.
    async fn kv_read<T: serde::de::DeserializeOwned>(
        &self,
        question: Question,
        options: &QueryOptions,
    ) -> Result<Answer<Option<T>>, Error> {
        let question = question
            .parameters(options.parameters())
            .token(&options.token);
        let response = self.send(question).await?;
        let meta = Self::meta(&response);
        let value = match response.status() {
            StatusCode::OK => Some(self.json(response).await?),
            StatusCode::NOT_FOUND => None,
            _ => return Err(self.unexpected(response).await),
        };
        Ok(Answer { value, meta })
    }
}

/// The path of a key: every byte but the harmless ones is escaped, slashes are kept where they may be.
fn key_path(key: &str) -> Result<String, Error> {
    if key == "." || key == ".." {
        // A URL can't carry them: they mean this directory and the one above, escaped or not.
        return Err(Error::Key(key.to_owned()));
    }
    // Behind an escaped slash a dot is just a dot.
    let keep_slashes = !key
        .split('/')
        .any(|segment| segment == "." || segment == "..");
    let mut path = String::with_capacity("/v1/kv/".len() + key.len());
    path.push_str("/v1/kv/");
    let plain: &[u8] = if keep_slashes { b"-._~/" } else { b"-._~" };
    path::push(&mut path, key, plain);
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_keys() {
        let cases = [
            ("a", "/v1/kv/a"),
            ("a/b", "/v1/kv/a/b"),
            ("a//b/", "/v1/kv/a//b/"),
            ("", "/v1/kv/"),
            ("a b?c#d%e+f", "/v1/kv/a%20b%3Fc%23d%25e%2Bf"),
            ("ü", "/v1/kv/%C3%BC"),
            ("a/../b", "/v1/kv/a%2F..%2Fb"),
            ("./x", "/v1/kv/.%2Fx"),
            ("..x/y", "/v1/kv/..x/y"),
        ];
        for (key, path) in cases {
            assert_eq!(key_path(key).unwrap(), path, "{key}");
            // Whatever reads URLs must find the path as it was written.
            let url: reqwest::Url = format!("http://h{path}").parse().unwrap();
            assert_eq!(url.path(), path, "{key}");
        }
        for key in [".", ".."] {
            key_path(key).unwrap_err();
        }
    }

    #[test]
    fn reads_pairs() {
        let json = r#"[{"LockIndex":0,"Key":"a","Flags":7,"Value":"aGVsbG8=","CreateIndex":8,"ModifyIndex":9},
            {"Key":"b","Value":null,"Session":"s","LockIndex":1,"New":{}}]"#;
        let pairs: Vec<KvPair> = serde_json::from_str(json).unwrap();
        assert_eq!(pairs[0].value, "hello");
        assert_eq!(
            (pairs[0].flags, pairs[0].create_index, pairs[0].modify_index),
            (7, 8, 9)
        );
        assert_eq!((pairs[1].value.len(), pairs[1].session.as_str()), (0, "s"));
        serde_json::from_str::<KvPair>(r#"{"Key":"a","Value":"?"}"#).unwrap_err();
    }
}
