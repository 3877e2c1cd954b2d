//! The demo page's static files, with the headers under which they are served.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use crate::node::http::{Answer, text};

/// A page has no more files than this, …
const MAX_FILES: usize = 1000;
/// … and no more bytes.
const MAX_BYTES: usize = 64 << 20;

/// Files that were read once and are served from memory.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// By path, with a leading slash.
    files: BTreeMap<String, (&'static str, Bytes)>,
    policy: Option<HeaderValue>,
}

#[cfg(feature = "page")]
mod embedded {
    // `FILES`: every file of web/dist with its path.
    include!(concat!(env!("OUT_DIR"), "/page.rs"));
}

impl Page {
    /// The files that were embedded when this binary was built; `None`: it was built without the feature `page`.
    #[must_use]
    pub fn embedded() -> Option<Self> {
        #[cfg(feature = "page")]
        {
            let mut page = Self::default();
            for (path, bytes) in embedded::FILES {
                page.add(path, Bytes::from_static(bytes));
            }
            Some(page)
        }
        #[cfg(not(feature = "page"))]
        None
    }

    /// The files of a directory.
    ///
    /// # Errors
    /// It cannot be read, holds no `index.html`, or too much.
    pub fn load(directory: &Path) -> io::Result<Self> {
        let mut page = Self::default();
        let (mut waiting, mut total) = (vec![directory.to_owned()], 0usize);
        while let Some(at) = waiting.pop() {
            for entry in std::fs::read_dir(&at)? {
                let entry = entry?;
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    waiting.push(entry.path());
                } else if kind.is_file() {
                    total = total.saturating_add(entry.metadata()?.len() as usize);
                    if total > MAX_BYTES || page.files.len() >= MAX_FILES {
                        return Err(io::Error::other(format!(
                            "a page has at most {MAX_FILES} files and {MAX_BYTES} bytes"
                        )));
                    }
                    let path = entry.path();
                    let below = path.strip_prefix(directory).map_err(io::Error::other)?;
                    let parts: Vec<_> = below.iter().map(|part| part.to_string_lossy()).collect();
                    page.add(&parts.join("/"), Bytes::from(std::fs::read(&path)?));
                }
            }
        }
        if page.files.contains_key("/index.html") {
            Ok(page)
        } else {
            Err(io::Error::other("there is no index.html in it: `make demo` builds the page"))
        }
    }

    /// Adds a file.
    pub fn add(&mut self, path: &str, bytes: Bytes) {
        self.files.insert(format!("/{path}"), (mime(path), bytes));
    }

    /// Lets the page talk to these hosts, and to nobody else.
    pub fn allow(&mut self, hosts: &[String]) {
        let policy = format!(
            "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; style-src 'self'; \
             img-src 'self' data: blob:; connect-src 'self' {}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            hosts.join(" ")
        );
        self.policy = HeaderValue::from_str(&policy).ok();
    }

    /// The file that was asked for.
    pub(crate) fn answer<B>(&self, request: &Request<B>) -> Answer {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "Files can be read here, and nothing else.");
        }
        let path = match request.uri().path() {
            "/" => "/index.html",
            path => path,
        };
        let mut answer = match self.files.get(path) {
            Some((mime, bytes)) => {
                let mut answer = Response::new(Full::new(bytes.clone()));
                answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(mime));
                answer
            }
            None => text(StatusCode::NOT_FOUND, "There is no such file."),
        };
        let headers = answer.headers_mut();
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if let Some(policy) = &self.policy {
            headers.insert(header::CONTENT_SECURITY_POLICY, policy.clone());
        }
        answer
    }
}

fn mime(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("wasm") => "application/wasm",
        Some("json" | "map") => "application/json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("woff2") => "font/woff2",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
