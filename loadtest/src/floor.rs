//! The floor: what a request costs before anything is done with it.
//!
//! Reads head and body, answers a constant. No signature, no parsing, no journal, no forwarding: every
//! microsecond that the gateway takes above this is for what it does.

use std::io;
use std::net::SocketAddr;

use monoio::io::AsyncWriteRentExt;
use monoio::net::TcpStream;

use crate::http::{self, Incoming};
use crate::server;

/// As long as the gateway's answer.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

#[derive(clap::Args)]
pub struct Args {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// CPU to run on
    #[arg(long)]
    cpu: Option<usize>,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    server::on_core(args.cpu, async {
        let listener = server::bind(args.listen)?;
        println!("floor listens on {}", listener.local_addr()?);
        Ok(server::accept(listener, connection).await?)
    })?
}

async fn connection(mut stream: TcpStream) -> io::Result<()> {
    let mut incoming = Incoming::new();
    while let Some(((), length)) = incoming.message(&mut stream, http::request).await? {
        incoming.take(length);
        stream.write_all(ANSWER).await.0?;
    }
    Ok(())
}
