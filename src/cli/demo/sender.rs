//! Plays Meta: signs webhooks and posts them over one kept-alive connection.

use std::time::{Duration, Instant};

use crate::cli::client::{Client, ClientError, Url};
use crate::cli::sign::signature;

/// Meta gives up after about 20 s; nobody wants to watch a demo for that long.
const TIMEOUT: Duration = Duration::from_secs(10);

/// One app of Meta's.
#[derive(Debug)]
pub struct Sender {
    client: Client,
    secret: Vec<u8>,
}

/// How one post went.
#[derive(Debug)]
pub struct Outcome {
    /// 0 if no answer came.
    pub status: u16,
    pub begun: Instant,
    pub answered: Instant,
    /// Why no answer came.
    pub error: Option<ClientError>,
}

impl Sender {
    pub fn new(url: Url, secret: &[u8]) -> Self {
        Self { client: Client::new(url, TIMEOUT), secret: secret.to_vec() }
    }

    /// Posts `body` with its signature.
    pub fn post(&mut self, body: &[u8]) -> Outcome {
        let signature = signature(&self.secret, body);
        self.post_as(body, &signature)
    }

    /// Posts `body` with the signature of somebody who does not know the secret.
    pub fn forge(&mut self, body: &[u8]) -> Outcome {
        let signature = signature(b"a guess", body);
        self.post_as(body, &signature)
    }

    fn post_as(&mut self, body: &[u8], signature: &str) -> Outcome {
        let headers = [
            ("content-type", "application/json"),
            ("user-agent", "facebookexternalua"),
            ("accept", "*/*"),
            ("x-hub-signature-256", signature),
        ];
        let begun = Instant::now();
        let answer = self.client.request("POST", &headers, body);
        let answered = Instant::now();
        match answer {
            Ok(answer) => Outcome { status: answer.status, begun, answered, error: None },
            Err(error) => Outcome { status: 0, begun, answered, error: Some(error) },
        }
    }
}
