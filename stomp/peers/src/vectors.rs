//! Reads `tests/vectors`; `tests/conformance.rs` says what is in there. What this program does not know it leaves out.

use std::{fs, path::Path};

use serde_json::{Map, Value};
use stompwire::proto::Limits;

use crate::peers::{Asked, Role, Seen};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors");
const DECODE: [&str; 12] = [
    "id",
    "item",
    "version",
    "role",
    "in",
    "hex",
    "frames",
    "error",
    "left",
    "limits",
    "unescape_connect",
    "note",
];
const ENCODE: [&str; 9] =
    ["id", "item", "version", "frame", "out", "error", "escape_connect", "content_length", "note"];

/// Octets in, frames or an error out.
#[derive(Clone)]
pub struct DecodeVector {
    pub id: String,
    pub item: u64,
    pub versions: Vec<String>,
    pub role: Role,
    pub input: Vec<u8>,
    pub frames: Vec<Seen>,
    pub error: Option<String>,
    pub left: usize,
    pub limits: Limits,
    pub has_limits: bool,
    pub unescape_connect: bool,
}

/// A frame in, octets or a refusal out.
pub struct EncodeVector {
    pub id: String,
    pub item: u64,
    pub versions: Vec<String>,
    pub asked: Asked,
    pub out: Option<Vec<u8>>,
    pub error: Option<String>,
}

#[derive(Default)]
pub struct Vectors {
    pub decode: Vec<DecodeVector>,
    pub encode: Vec<EncodeVector>,
    /// How many are of another form, by file.
    pub left_out: Vec<(String, usize)>,
}

/// # Panics
/// If the folder cannot be read, or holds something that is not JSON.
#[must_use]
pub fn load() -> Vectors {
    let mut vectors = Vectors::default();
    let mut files: Vec<_> = fs::read_dir(Path::new(FOLDER))
        .expect("the folder is part of the repository")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    for path in files {
        let text = fs::read_to_string(&path).expect("readable");
        let value: Value = serde_json::from_str(&text).expect("JSON");
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let list = value.as_array().map_or(&[][..], Vec::as_slice);
        let mut left_out = usize::from(value.as_array().is_none());
        for value in list {
            if let Some(vector) = value.as_object().and_then(decode) {
                vectors.decode.push(vector);
            } else if let Some(vector) = value.as_object().and_then(encode) {
                vectors.encode.push(vector);
            } else {
                left_out += 1;
            }
        }
        if left_out > 0 {
            vectors.left_out.push((name, left_out));
        }
    }
    vectors
}

fn decode(object: &Map<String, Value>) -> Option<DecodeVector> {
    if !object.keys().all(|key| DECODE.contains(&key.as_str())) {
        return None;
    }
    let input = match (object.get("in"), object.get("hex")) {
        (Some(text), None) => octets(text.as_str()?)?,
        (None, Some(hex)) => unhex(hex.as_str()?)?,
        _ => return None,
    };
    let frames = object.get("frames").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let limits = object.get("limits").and_then(Value::as_object);
    Some(DecodeVector {
        id: text(object, "id")?,
        item: object.get("item")?.as_u64()?,
        versions: versions(object)?,
        role: match object.get("role")?.as_str()? {
            "client" => Role::Client,
            "server" => Role::Server,
            _ => return None,
        },
        input,
        frames: frames.iter().map(frame).collect::<Option<_>>()?,
        error: text(object, "error"),
        left: object.get("left").and_then(Value::as_u64).unwrap_or(0) as usize,
        limits: limits.map_or(Some(Limits::default()), limits_of)?,
        has_limits: limits.is_some(),
        unescape_connect: flag(object, "unescape_connect", false),
    })
}

fn encode(object: &Map<String, Value>) -> Option<EncodeVector> {
    if !object.keys().all(|key| ENCODE.contains(&key.as_str())) {
        return None;
    }
    let frame = frame(object.get("frame")?)?;
    let text_of = |octets: Vec<u8>| String::from_utf8(octets).ok();
    let headers = frame.headers.into_iter().map(|(name, value)| Some((text_of(name)?, text_of(value)?)));
    Some(EncodeVector {
        id: text(object, "id")?,
        item: object.get("item")?.as_u64()?,
        versions: versions(object)?,
        asked: Asked {
            command: frame.command,
            headers: headers.collect::<Option<_>>()?,
            body: frame.body,
            version: String::new(),
            content_length: flag(object, "content_length", true),
            escape_connect: flag(object, "escape_connect", false),
        },
        out: match object.get("out") {
            Some(out) => Some(octets(out.as_str()?)?),
            None => None,
        },
        error: text(object, "error"),
    })
}

fn text(object: &Map<String, Value>, key: &str) -> Option<String> {
    Some(object.get(key)?.as_str()?.to_owned())
}

fn flag(object: &Map<String, Value>, key: &str, default: bool) -> bool {
    object.get(key).and_then(Value::as_bool).unwrap_or(default)
}

fn versions(object: &Map<String, Value>) -> Option<Vec<String>> {
    match object.get("version")? {
        Value::String(one) => Some(vec![one.clone()]),
        Value::Array(more) => more.iter().map(|version| Some(version.as_str()?.to_owned())).collect(),
        _ => None,
    }
}

/// `[command, [[name, value], …], body]`; the body may be left out.
fn frame(value: &Value) -> Option<Seen> {
    let [command, headers, body @ ..] = value.as_array()?.as_slice() else { return None };
    let headers = headers.as_array()?.iter().map(|pair| {
        let [name, value] = pair.as_array()?.as_slice() else { return None };
        Some((name.as_str()?.into(), value.as_str()?.into()))
    });
    Some(Seen {
        command: command.as_str()?.to_owned(),
        headers: headers.collect::<Option<_>>()?,
        body: match body {
            [] => Vec::new(),
            [body] => octets(body.as_str()?)?,
            _ => return None,
        },
    })
}

/// Octets as the characters U+0000 to U+00FF.
fn octets(text: &str) -> Option<Vec<u8>> {
    text.chars().map(|c| u8::try_from(c).ok()).collect()
}

pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = (0..text.len()).step_by(2);
    digits.map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

fn limits_of(object: &Map<String, Value>) -> Option<Limits> {
    let mut limits = Limits::default();
    for (key, value) in object {
        let value = value.as_u64()? as usize;
        match key.as_str() {
            "max_line" => limits.max_line = value,
            "max_headers" => limits.max_headers = value,
            "max_head" => limits.max_head = value,
            "max_body" => limits.max_body = value,
            "max_eols" => limits.max_eols = value,
            _ => return None,
        }
    }
    Some(limits)
}
