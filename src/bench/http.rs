//! `GET`, for what the gateway tells over HTTP: one request on a connection of its own, so that
//! nothing of it stays open in the gateway.

use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::http::Uri;

use super::{BenchError, hints};
use crate::client::Secret;

/// The longest that an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where a gateway answers over HTTP.
#[derive(Debug, Clone)]
pub(super) struct Http {
    /// Host and port.
    authority: String,
    /// Where the WebSocket is, with a query where there is one.
    path: String,
    /// The bearer token of each request.
    token: Option<Secret>,
}

impl Http {
    /// Where a WebSocket's URL points to.
    pub(super) fn beside(url: &str) -> Result<Self, BenchError> {
        let uri = url.parse::<Uri>().ok().filter(|uri| uri.scheme_str() == Some("ws"));
        let authority = uri.as_ref().and_then(Uri::authority);
        let wrong = || BenchError::Option {
            option: "url",
            expected: "like ws://127.0.0.1:7117/gateway".to_owned(),
            got: url.to_owned(),
        };
        let authority = authority.ok_or_else(wrong)?;
        let port = authority.port_u16().unwrap_or(80);
        let path = uri.as_ref().and_then(Uri::path_and_query).map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { authority: format!("{}:{port}", authority.host()), path, token: None })
    }

    /// The same, asked with that bearer token.
    pub(super) fn with_token(self, token: Option<Secret>) -> Self {
        Self { token, ..self }
    }

    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The body of an answer with status 200; anything else is an error.
    pub(super) async fn get(&self, path: &str) -> Result<String, BenchError> {
        let failed =
            |reason: String| BenchError::Http { url: format!("http://{}{path}", self.authority), reason };
        let answer = timeout(PATIENCE, self.exchange(path)).await;
        let answer = answer.map_err(|_| failed(format!("no answer within {} s", PATIENCE.as_secs())))?;
        body(&answer.map_err(|error| failed(error.to_string()))?).map_err(failed)
    }

    /// The same, read as JSON.
    pub(super) async fn get_json<T: DeserializeOwned>(&self, path: &str) -> Result<T, BenchError> {
        let body = self.get(path).await?;
        serde_json::from_str(&body).map_err(|error| BenchError::Http {
            url: format!("http://{}{path}", self.authority),
            reason: format!("{error} in {body:.256}"),
        })
    }

    async fn exchange(&self, path: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(&self.authority).await?;
        let authorization =
            self.token.as_ref().map(|Secret(token)| format!("Authorization: Bearer {token}\r\n"));
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{}\r\n",
            self.authority,
            authorization.unwrap_or_default()
        );
        stream.write_all(head.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }
}

/// The body of a whole answer. The gateway's have a length, and are not chunked.
fn body(answer: &str) -> Result<String, String> {
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("the answer ends within its head")?;
    let (status, headers) = head.split_once("\r\n").unwrap_or((head, ""));
    let code = status.split(' ').nth(1).unwrap_or_default();
    if code != "200" {
        return Err(hints::with(format!("{status}: {body:.256}"), hints::for_status(code)));
    }
    let length = headers.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    if length != Some(body.len()) {
        return Err(format!("{length:?} bytes were announced, {} came", body.len()));
    }
    Ok(body.to_owned())
}

/// The sum of a metric over all its labels, in Prometheus's text format.
pub(super) fn metric(exposition: &str, name: &str) -> u64 {
    let lines = exposition.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_urls_host_and_port_are_asked() {
        assert_eq!(Http::beside("ws://127.0.0.1:7117/gateway").unwrap().authority, "127.0.0.1:7117");
        assert_eq!(Http::beside("ws://gateway/gateway").unwrap().authority, "gateway:80");
        assert_eq!(Http::beside("ws://gateway/behind/a?b=c").unwrap().path, "/behind/a?b=c");
        let error = Http::beside("localhost:1").unwrap_err().to_string();
        assert_eq!(error, "--url must be like ws://127.0.0.1:7117/gateway, not localhost:1");
    }

    #[test]
    fn a_whole_answer_has_a_body() {
        assert_eq!(body("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n").unwrap(), "ok\n");
    }

    #[test]
    fn what_is_cut_short_or_refused_is_an_error() {
        for (answer, reason) in [
            ("HTTP/1.1 200 OK\r\ncontent-le", "within its head"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 30\r\n\r\nok\n", "Some(30) bytes were announced, 3 came"),
            (
                "HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\nno",
                "401 Unauthorized: no; --token is the credential's token",
            ),
            (
                "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\nno",
                "503 Service Unavailable: no",
            ),
        ] {
            let error = body(answer).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn a_metric_is_summed_over_its_labels() {
        let text = "# TYPE a gauge\na{state=\"up\"} 3\na{state=\"away\"} 4\na_total 100\n";
        assert_eq!(metric(text, "a"), 7);
    }
}
