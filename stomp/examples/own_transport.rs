//! The codec alone, over a transport of one's own: here a pipe inside the process, with both ends of the protocol written
//! by hand. `stompwire::proto::ClientSession` would keep version, heart-beats and receipts too.
//!
//! `cargo run -p stompwire --example own_transport`

use std::error::Error;

use bytes::BytesMut;
use stompwire::{Command, Frame, Version, codec::StompCodec, proto::Limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_util::codec::{Decoder, Encoder};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (ours, theirs) = tokio::io::duplex(4096);
    let (mut client, mut server) = (Peer::new(ours), Peer::new(theirs));

    client
        .say(&Frame::new(Command::Connect).with_header("accept-version", "1.2").with_header("host", "/"))
        .await?;
    let connect = server.hear().await?;
    println!("the server hears {}", connect.command());
    server.say(&Frame::new(Command::Connected).with_header("version", "1.2")).await?;
    let connected = client.hear().await?;
    println!("the client hears {}, version {:?}", connected.command(), connected.header("version"));
    // From the next frame on the rules of that version are in force, escaping among them.
    client.codec.set_version(Version::V1_2);
    server.codec.set_version(Version::V1_2);

    client.say(&Frame::send("/queue/a", "body with a NUL: \0").with_header("note", "a:b\nc")).await?;
    let send = server.hear().await?;
    println!("note {:?}, body {:?}", send.header("note"), send.body_bytes());
    assert_eq!(send.header("note"), Some("a:b\nc"));
    Ok(())
}

struct Peer {
    transport: DuplexStream,
    codec: StompCodec,
    read: BytesMut,
}

impl Peer {
    fn new(transport: DuplexStream) -> Self {
        Self { transport, codec: StompCodec::new(Limits::default()), read: BytesMut::new() }
    }

    async fn say(&mut self, frame: &Frame) -> Result<(), Box<dyn Error>> {
        let mut octets = BytesMut::new();
        self.codec.encode(frame, &mut octets)?;
        Ok(self.transport.write_all(&octets).await?)
    }

    async fn hear(&mut self) -> Result<Frame, Box<dyn Error>> {
        loop {
            if let Some(frame) = self.codec.decode(&mut self.read)? {
                return Ok(frame);
            }
            if self.transport.read_buf(&mut self.read).await? == 0 {
                return Err("the peer has hung up".into());
            }
        }
    }
}
