//! Objects that are put once: only where there is none, and compared where there is one.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use data_encoding::{BASE64, HEXLOWER};
use futures_util::StreamExt as _;
use hyper::body::Bytes;
use md5::Md5;
use object_store::path::Path;
use object_store::{
    Extensions, GetOptions, GetResult, ObjectStore as _, ObjectStoreExt as _, PutMode, PutOptions,
    PutPayload,
};
use sha2::{Digest, Sha256};

use super::fault::{self, Fault};
use super::transport::StoredChecksum;
use super::{Home, MEMORY_KIB, folder};
use crate::tasks;

/// Bytes of a part; a longer file goes in several.
pub(super) const PART: u64 = 8 << 20;

/// Notes the upload in parts that is under way, so that one that was cut off can be ended.
pub trait Parts: Send + Sync {
    /// The id of an upload of this object that was begun and not ended.
    fn begun(&self) -> Option<String>;

    /// Notes durably that this upload begins.
    ///
    /// # Errors
    /// The system's error; the upload does not begin.
    fn begin(&self, id: &str) -> std::io::Result<()>;

    /// Notes that no upload of this object is under way.
    fn end(&self);
}

/// A file to be put, open for reading.
#[derive(Clone, Debug)]
pub struct Upload {
    /// The file, which does not change any more.
    pub file: Arc<File>,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256 as it was when it was recorded, in hexadecimal digits, if known.
    pub sha256: Option<String>,
}

/// The digests of content that was put.
struct Put {
    bytes: u64,
    sha256: [u8; 32],
    /// The checksum that the store keeps, in its own form.
    stored: String,
}

/// Content that was put, for another digest of it.
#[derive(Clone, Copy)]
enum Content<'c> {
    Bytes(&'c Bytes),
    File(&'c Upload),
}

impl Home {
    /// Puts a small object, if there is none. One that is there must be equal: then nothing is done.
    ///
    /// # Errors
    /// [`Fault::Taken`] if an object with other content is there; see [`Fault`] for the rest. Every one may
    /// be tried again.
    pub async fn put(&self, path: &Path, content: Bytes) -> Result<(), Fault> {
        let sha256 = Sha256::digest(&content).into();
        let put = Put { bytes: content.len() as u64, sha256, stored: BASE64.encode(&sha256) };
        self.put_whole(path, content, &put).await
    }

    /// Puts a file, in parts if it is longer than 8 MiB, and verifies that the store has all of it. Does
    /// nothing if an equal object is there.
    ///
    /// # Errors
    /// [`Fault::Local`] if the file cannot be read or is not the recorded one: no object was made.
    /// [`Fault::Taken`] if an object with other content is there. See [`Fault`] for the rest. Every one may
    /// be tried again.
    pub async fn put_file(
        &self,
        path: &Path,
        upload: &Upload,
        parts: &dyn Parts,
    ) -> Result<(), Fault> {
        if let Some(to) = self.folder_of(path) {
            let put = self.digest(upload).await?;
            return match folder::copy(Arc::clone(&upload.file), to).await {
                Ok(()) | Err(Fault::Taken(_)) => {
                    self.compare(path, &put, Content::File(upload)).await
                }
                Err(fault) => Err(fault),
            };
        }
        if upload.bytes > PART {
            return self.put_parts(path, upload, parts).await;
        }
        let _room = self.room(upload.bytes).await;
        let (content, sha256) = read(upload, 0, upload.bytes, Sha256::new()).await?;
        let sha256 = sha256.finalize().into();
        check(upload, sha256)?;
        let put = Put { bytes: upload.bytes, sha256, stored: BASE64.encode(&sha256) };
        self.put_whole(path, content, &put).await
    }

    async fn put_whole(&self, path: &Path, content: Bytes, put: &Put) -> Result<(), Fault> {
        if let Some(to) = self.folder_of(path) {
            return match folder::put(to, content.clone()).await {
                Ok(()) | Err(Fault::Taken(_)) => {
                    self.compare(path, put, Content::Bytes(&content)).await
                }
                Err(fault) => Err(fault),
            };
        }
        let is_exclusive = self.0.is_exclusive.load(Ordering::Relaxed);
        if !is_exclusive && self.head(path).await?.is_some() {
            return self.compare(path, put, Content::Bytes(&content)).await;
        }
        let mode = if is_exclusive { PutMode::Create } else { PutMode::Overwrite };
        let options = PutOptions { mode, ..PutOptions::default() };
        let payload = PutPayload::from(content.clone());
        let content = Content::Bytes(&content);
        match self.0.store.put_opts(path, payload, options).await {
            Ok(done) if is_checked(&done.extensions, put) => Ok(()),
            Ok(done) if self.has_tag(done.e_tag.as_deref(), content).await? => Ok(()),
            Ok(_) => self.compare(path, put, content).await,
            Err(error) => match self.fault(&error) {
                Fault::Taken(_) => self.compare(path, put, content).await,
                fault => Err(fault),
            },
        }
    }

    async fn put_parts(
        &self,
        path: &Path,
        upload: &Upload,
        notes: &dyn Parts,
    ) -> Result<(), Fault> {
        let Some(store) = self.0.parts.clone() else {
            return Err(Fault::Refused("the store takes no parts".to_owned()));
        };
        if let Some(id) = notes.begun() {
            match store.abort_multipart(path, &id).await.map_err(|error| self.fault(&error)) {
                Ok(()) | Err(Fault::Missing(_)) => notes.end(),
                Err(fault) => return Err(fault),
            }
        }
        // No store takes parts only where there is no object, so the object is looked for first. Without the
        // right to list the bucket, S3 answers 403 for an object that is missing.
        match self.head(path).await {
            Ok(None) | Err(Fault::Forbidden(_)) => {}
            Ok(Some(_)) => {
                let put = self.digest(upload).await?;
                return self.compare(path, &put, Content::File(upload)).await;
            }
            Err(fault) => return Err(fault),
        }
        let id = store.create_multipart(path).await.map_err(|error| self.fault(&error))?;
        let begun = notes.begin(&id).map_err(|error| Fault::local(&error));
        let (mut sha256, mut of_parts) = (Sha256::new(), Sha256::new());
        let sent = async {
            begun?;
            let (mut ids, mut at) = (Vec::new(), 0);
            while at < upload.bytes {
                let count = PART.min(upload.bytes - at);
                let _room = self.room(count).await;
                let (content, so_far) = read(upload, at, count, sha256.clone()).await?;
                sha256 = so_far;
                of_parts.update(Sha256::digest(&content));
                let part = store.put_part(path, &id, ids.len(), PutPayload::from(content)).await;
                ids.push(part.map_err(|error| self.fault(&error))?);
                at += count;
            }
            let whole = sha256.clone().finalize().into();
            check(upload, whole)?;
            let stored = format!("{}-{}", BASE64.encode(&of_parts.clone().finalize()), ids.len());
            let done = store.complete_multipart(path, &id, ids).await;
            done.map_err(|error| self.fault(&error))?;
            Ok(Put { bytes: upload.bytes, sha256: whole, stored })
        };
        match sent.await {
            Ok(put) => {
                notes.end();
                self.compare(path, &put, Content::File(upload)).await
            }
            Err(fault) => {
                // Where that fails as well, the note has the next try do it.
                match store.abort_multipart(path, &id).await.map_err(|error| self.fault(&error)) {
                    Ok(()) | Err(Fault::Missing(_)) => notes.end(),
                    Err(_) => {}
                }
                Err(fault)
            }
        }
    }

    /// Ends an upload in parts that is not to go on, as far as the store lets it.
    pub(super) async fn give_up_parts(&self, path: &Path, notes: &dyn Parts) {
        let (Some(store), Some(id)) = (&self.0.parts, notes.begun()) else { return };
        if let Err(error) = store.abort_multipart(path, &id).await {
            let error = fault::shown(&error);
            tracing::warn!(%path, error, "parts of a deleted recording may be left in the home");
        }
        notes.end();
    }

    /// Whether a file is there as an object.
    ///
    /// # Errors
    /// [`Fault::Taken`] if the object differs: by length, or by the SHA-256 that the store keeps. See
    /// [`Fault`] for the rest.
    pub(super) async fn has_file(&self, path: &Path, upload: &Upload) -> Result<bool, Fault> {
        let Some(found) = self.look(path).await? else { return Ok(false) };
        let told = found.extensions.get::<StoredChecksum>();
        if found.meta.size != upload.bytes {
            return Err(other(path, &format!("it has {} bytes", found.meta.size)));
        }
        match told {
            Some(told) if self.digest(upload).await?.stored != told.sha256 => {
                Err(other(path, "its SHA-256 is another one"))
            }
            _ => Ok(true),
        }
    }

    /// The answer to a question for an object and its checksum.
    async fn look(&self, path: &Path) -> Result<Option<GetResult>, Fault> {
        let options = GetOptions { head: true, ..GetOptions::default() };
        match self.0.checker.get_opts(path, options).await {
            Ok(found) => Ok(Some(found)),
            Err(error) => match self.fault(&error) {
                Fault::Missing(_) => Ok(None),
                fault => Err(fault),
            },
        }
    }

    /// Compares an object with content: by length, and by the SHA-256 that the store keeps, or else by an entity tag
    /// that is an MD5, or else by reading it.
    async fn compare(&self, path: &Path, put: &Put, content: Content<'_>) -> Result<(), Fault> {
        let Some(found) = self.look(path).await? else {
            return Err(Fault::Unwell(format!("{path} is not there although the store took it")));
        };
        if found.meta.size != put.bytes {
            let reason = format!("it has {} bytes, not {}", found.meta.size, put.bytes);
            return Err(other(path, &reason));
        }
        if is_checked(&found.extensions, put)
            || self.has_tag(found.meta.e_tag.as_deref(), content).await?
            || self.read_back(path).await? == put.sha256
        {
            return Ok(());
        }
        Err(other(path, "its SHA-256 is another one"))
    }

    /// Whether an entity tag is the MD5 of this content, as S3 gives one to an object: in parts, the MD5 of the MD5s
    /// of the parts, with `-N` behind it. Any other tag tells nothing: those of other stores, and of objects that are
    /// encrypted by a key service. Against damage, not against forgery.
    async fn has_tag(&self, tag: Option<&str>, content: Content<'_>) -> Result<bool, Fault> {
        let Some(tag) = tag.map(|tag| tag.trim_matches('"')) else { return Ok(false) };
        let (digits, parts) = tag.split_once('-').unwrap_or((tag, ""));
        let is_md5 = digits.len() == 32
            && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
            && parts.bytes().all(|byte| byte.is_ascii_digit());
        if !is_md5 {
            return Ok(false);
        }
        let found = match content {
            Content::Bytes(content) => HEXLOWER.encode(&Md5::digest(content)),
            Content::File(upload) => {
                let (mut of_parts, mut first, mut at, mut parts) = (Md5::new(), None, 0, 0);
                while at < upload.bytes || parts == 0 {
                    let count = PART.min(upload.bytes - at);
                    let _room = self.room(count).await;
                    let md5 = read(upload, at, count, Md5::new()).await?.1.finalize();
                    of_parts.update(md5);
                    first.get_or_insert(md5);
                    (at, parts) = (at + count, parts + 1);
                }
                match first {
                    Some(md5) if parts == 1 => HEXLOWER.encode(&md5),
                    _ => format!("{}-{parts}", HEXLOWER.encode(&of_parts.finalize())),
                }
            }
        };
        Ok(found.eq_ignore_ascii_case(tag))
    }

    /// The SHA-256 of a file, in hexadecimal digits.
    ///
    /// # Errors
    /// [`Fault::Local`] if the file cannot be read or is not the recorded one.
    pub(super) async fn sha256_of(&self, upload: &Upload) -> Result<String, Fault> {
        Ok(HEXLOWER.encode(&self.digest(upload).await?.sha256))
    }

    /// The SHA-256 of an object, by reading it.
    async fn read_back(&self, path: &Path) -> Result<[u8; 32], Fault> {
        if let Some(file) = self.folder_of(path) {
            return folder::sha256(file).await;
        }
        let read = async {
            let mut content = self.0.store.get(path).await?.into_stream();
            let mut sha256 = Sha256::new();
            while let Some(piece) = content.next().await {
                sha256.update(&piece?);
            }
            Ok(sha256.finalize().into())
        };
        read.await.map_err(|error| self.fault(&error))
    }

    /// The digests of a file, by reading it.
    async fn digest(&self, upload: &Upload) -> Result<Put, Fault> {
        let (mut sha256, mut of_parts, mut at, mut parts) = (Sha256::new(), Sha256::new(), 0, 0);
        while at < upload.bytes {
            let count = PART.min(upload.bytes - at);
            let _room = self.room(count).await;
            let (content, so_far) = read(upload, at, count, sha256).await?;
            sha256 = so_far;
            // A file of one part has the digest of the whole.
            if upload.bytes > PART {
                of_parts.update(Sha256::digest(&content));
            }
            (at, parts) = (at + count, parts + 1);
        }
        let sha256 = sha256.finalize().into();
        check(upload, sha256)?;
        let stored = if parts > 1 {
            format!("{}-{parts}", BASE64.encode(&of_parts.finalize()))
        } else {
            BASE64.encode(&sha256)
        };
        Ok(Put { bytes: upload.bytes, sha256, stored })
    }

    /// Room in memory for content of this length.
    async fn room(&self, bytes: u64) -> Option<tokio::sync::SemaphorePermit<'_>> {
        let kib = bytes.div_ceil(1024).min(MEMORY_KIB as u64) as u32;
        self.0.memory.acquire_many(kib).await.ok()
    }
}

pub(super) fn other(path: &Path, reason: &str) -> Fault {
    Fault::Taken(format!("another object is at {path}: {reason}; it was not replaced"))
}

/// Whether the answer of a store tells the checksum of the content.
fn is_checked(told: &Extensions, put: &Put) -> bool {
    told.get::<StoredChecksum>().is_some_and(|checksum| checksum.sha256 == put.stored)
}

/// Fails if a file is not the recorded one.
fn check(upload: &Upload, sha256: [u8; 32]) -> Result<(), Fault> {
    match &upload.sha256 {
        Some(recorded) if *recorded != HEXLOWER.encode(&sha256) => Err(Fault::damaged()),
        _ => Ok(()),
    }
}

/// Reads `count` bytes of a file from `at` on, and takes them into a digest.
async fn read<D: Digest + Send + 'static>(
    upload: &Upload,
    at: u64,
    count: u64,
    mut digest: D,
) -> Result<(Bytes, D), Fault> {
    let file = Arc::clone(&upload.file);
    let read = tasks::blocking(move || {
        let mut content = vec![0; count as usize];
        file.read_exact_at(&mut content, at)?;
        digest.update(&content);
        Ok((Bytes::from(content), digest))
    });
    match read.await {
        Ok(read) => read.map_err(|error: std::io::Error| Fault::local(&error)),
        Err(_) => Err(Fault::Local("the reading ended with a bug, see the log".to_owned())),
    }
}
