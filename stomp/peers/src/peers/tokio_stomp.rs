//! tokio-stomp and its forks: codecs of typed frames, for clients.

use super::{Codec, Peer, Role, SEND_BODY, SEND_HEADERS, Seen, Shows};

/// What these crates refuse a frame without.
pub(super) fn required(command: &str) -> &'static [&'static str] {
    match command {
        "CONNECT" | "STOMP" => &["accept-version", "host"],
        "CONNECTED" => &["version"],
        "MESSAGE" => &["destination", "message-id", "subscription"],
        "RECEIPT" => &["receipt-id"],
        "SEND" => &["destination"],
        "SUBSCRIBE" => &["destination", "id"],
        "UNSUBSCRIBE" | "ACK" | "NACK" => &["id"],
        "BEGIN" | "COMMIT" | "ABORT" => &["transaction"],
        _ => &[],
    }
}

/// Fields that are there, as headers.
pub(super) fn fields(list: &[(&str, Option<String>)]) -> Vec<super::Header> {
    let there = list.iter().filter_map(|(name, value)| Some(((*name).into(), value.clone()?.into_bytes())));
    there.collect()
}

/// Adds headers whose name is not among them yet, or that are repeats of one of `more`.
pub(super) fn extend(headers: &mut Vec<super::Header>, more: impl IntoIterator<Item = super::Header>) {
    let known: Vec<_> = headers.iter().map(|(name, _)| name.clone()).collect();
    headers.extend(more.into_iter().filter(|(name, _)| !known.contains(name)));
}

/// `$headers`: the field of MESSAGE with all its headers; `$send`: the field of SEND beside the common ones, made
/// of the headers that have no field.
macro_rules! family {
    ($module:ident, $krate:ident, $peer:ident, { $($about:tt)* },
     message: { $($headers:ident)? }, send: { $($send:ident: $from_rest:expr)? }, extra_headers_are_written: $extra:expr, codec: $codec:expr) => {
        mod $module {
            use bytes::BytesMut;
            use $krate::{FromServer, Message, ToServer, client::ClientCodec};
            use tokio_util::codec::Encoder;

            use super::super::{Asked, Encoded, Run};
            use super::*;

            pub(in super::super) const PEER: Peer = Peer {
                speaks: &["1.2"],
                streams: true,
                shows: Shows::First,
                driven: "`client::ClientCodec`, which reads what a server sends",
                open: |setup| match setup.role {
                    Role::Client => {
                        Some(Box::new(Codec { codec: $codec, buffer: BytesMut::new(), show: seen }))
                    }
                    Role::Server => None,
                },
                encode,
                decode_run: |wire, read| Some(super::super::decode_run($codec, |_| true, wire, read)),
                encode_run: |count| Some(encode_run(count)),
                $($about)*
            };

            fn seen(message: Message<FromServer>) -> Option<Seen> {
                let (command, mut headers, body) = match message.content {
                    FromServer::Connected { version, session, server, heartbeat } => {
                        let version = Some(version);
                        let list = [
                            ("version", version),
                            ("session", session),
                            ("server", server),
                            ("heart-beat", heartbeat),
                        ];
                        ("CONNECTED", fields(&list), None)
                    }
                    FromServer::Message { destination, message_id, subscription, $($headers,)? body, .. } => {
                        #[allow(unused_mut)]
                        let mut list = fields(&[
                            ("destination", Some(destination)),
                            ("message-id", Some(message_id)),
                            ("subscription", Some(subscription)),
                        ]);
                        $(
                            let all = $headers.into_iter().map(|(name, value)| (name.into(), value.into()));
                            extend(&mut list, all);
                        )?
                        ("MESSAGE", list, body)
                    }
                    FromServer::Receipt { receipt_id } => {
                        ("RECEIPT", fields(&[("receipt-id", Some(receipt_id))]), None)
                    }
                    FromServer::Error { message, body } => ("ERROR", fields(&[("message", message)]), body),
                };
                extend(&mut headers, message.extra_headers);
                Some(Seen { command: command.to_owned(), headers, body: body.unwrap_or_default() })
            }

            fn encode(asked: &Asked) -> Encoded {
                let mut rest = asked.headers.clone();
                let mut take = |name: &str| {
                    let at = rest.iter().position(|(other, _)| other == name)?;
                    Some(rest.remove(at).1)
                };
                let or = |value: Option<String>| value.unwrap_or_else(|| "x".to_owned());
                let content = match asked.command.as_str() {
                    "CONNECT" => ToServer::Connect {
                        accept_version: or(take("accept-version")),
                        host: or(take("host")),
                        login: take("login"),
                        passcode: take("passcode"),
                        heartbeat: None,
                    },
                    "SEND" => ToServer::Send {
                        destination: or(take("destination")),
                        transaction: take("transaction"),
                        $($send: $from_rest(&mut rest),)?
                        body: (!asked.body.is_empty()).then(|| asked.body.clone()),
                    },
                    "ACK" => ToServer::Ack { id: or(take("id")), transaction: take("transaction") },
                    _ => return None,
                };
                let bodiless = asked.command == "SEND" || asked.body.is_empty();
                if !bodiless || (!rest.is_empty() && !$extra) {
                    return None;
                }
                let extra_headers =
                    rest.into_iter().map(|(name, value)| (name.into_bytes(), value.into_bytes())).collect();
                let mut wire = BytesMut::new();
                let result = $codec.encode(Message { content, extra_headers }, &mut wire);
                Some(result.map(|()| wire.to_vec()).map_err(|error| format!("{error:?}")))
            }

            fn encode_run(count: usize) -> Run {
                let message = || {
                    let rest = SEND_HEADERS[1..].iter();
                    #[allow(unused_mut)]
                    let mut rest: Vec<_> =
                        rest.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
                    let content = ToServer::Send {
                        destination: SEND_HEADERS[0].1.to_owned(),
                        transaction: None,
                        $($send: $from_rest(&mut rest),)?
                        body: Some(vec![b'j'; SEND_BODY]),
                    };
                    let extra_headers =
                        rest.into_iter().map(|(name, value)| (name.into_bytes(), value.into_bytes())).collect();
                    Message { content, extra_headers }
                };
                let mut messages: Vec<_> = std::iter::repeat_with(message).take(count).collect();
                let (mut codec, mut wire) = ($codec, BytesMut::with_capacity(count * 400));
                Box::new(move || {
                    for message in messages.drain(..) {
                        codec.encode(message, &mut wire).expect("it can be encoded");
                    }
                    wire.len()
                })
            }
        }
        pub(super) use $module::PEER as $peer;
    };
}

/// SEND has a list for all other headers.
fn all(rest: &mut Vec<(String, String)>) -> Option<Vec<(String, String)>> {
    Some(std::mem::take(rest))
}

/// SEND has a header `type` that must be.
fn r#type(rest: &mut Vec<(String, String)>) -> String {
    let at = rest.iter().position(|(name, _)| name == "type");
    at.map_or_else(|| "x".to_owned(), |at| rest.remove(at).1)
}

family!(async_stomp_, async_stomp, ASYNC_STOMP, {
    name: "async-stomp",
    version: "0.7.0",
    limits: "frame (100 MiB)",
    licence: "EUPL-1.2",
    released: "2026",
    required,
}, message: { headers }, send: { headers: all }, extra_headers_are_written: true, codec: ClientCodec::new());

family!(tokio_stomp_, tokio_stomp, TOKIO_STOMP, {
    name: "tokio-stomp",
    version: "0.4.0",
    limits: "none",
    licence: "MIT",
    released: "2023-12",
    required,
}, message: {}, send: {}, extra_headers_are_written: false, codec: ClientCodec);

family!(tokio_stomp_2_, tokio_stomp_2, TOKIO_STOMP_2, {
    name: "tokio-stomp-2",
    version: "0.3.0",
    limits: "none",
    licence: "MIT",
    released: "2023-06",
    required,
}, message: { headers }, send: { headers: all }, extra_headers_are_written: false, codec: ClientCodec);

family!(tokio_stomp_rs_, tokio_stomp_rs, TOKIO_STOMP_RS, {
    name: "tokio-stomp-rs",
    version: "0.1.10",
    limits: "none",
    licence: "MIT",
    released: "2024-08",
    required: |command| if command == "SEND" { &["destination", "type"] } else { required(command) },
}, message: {}, send: { content_type: r#type }, extra_headers_are_written: false, codec: ClientCodec);
