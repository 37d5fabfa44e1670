//! A second decoder, written to be obviously right rather than fast: one octet at a time, every line copied, nothing
//! shared with the real one but the names of its types.

use stompwire::proto::{Command, DecodeError, Lenience, Limits, Version};

pub(crate) mod feed;

/// What is in force.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// `None`: before the handshake.
    pub(crate) version: Option<Version>,
    pub(crate) limits: Limits,
    pub(crate) unescape_connect: bool,
    pub(crate) lenience: Lenience,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parsed {
    pub(crate) command: Command,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

struct Head {
    command: Command,
    lines: Vec<Line>,
    /// On the wire.
    len: usize,
}

enum Line {
    /// Name and value as they came.
    Header(Vec<u8>, Vec<u8>),
    Skipped(Vec<u8>),
}

/// How the input ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// So many octets are not consumed yet.
    Left(usize),
    /// The variant of the error.
    Error(&'static str),
}

/// All frames of the input, and how it ends. With `parts` a body may be as long as it may be in parts.
pub(crate) fn parse(mut input: &[u8], rules: &Rules, parts: bool) -> (Vec<Parsed>, End) {
    let mut frames = Vec::new();
    loop {
        match rules.skip_eols(&mut input) {
            Ok(true) => {}
            Ok(false) => return (frames, End::Left(input.len())),
            Err(error) => return (frames, End::Error(error)),
        }
        match rules.frame(input, parts) {
            Ok(Some((frame, used))) => {
                frames.push(frame);
                input = &input[used..];
            }
            Ok(None) => return (frames, End::Left(input.len())),
            Err(error) => return (frames, End::Error(error)),
        }
    }
}

impl Rules {
    fn crlf(&self) -> bool {
        self.version.is_none() || self.version == Some(Version::V1_2)
    }

    /// True if something other than an end-of-line follows.
    fn skip_eols(&self, input: &mut &[u8]) -> Result<bool, &'static str> {
        let mut eols = 0;
        loop {
            if input.starts_with(b"\n") {
                *input = &input[1..];
            } else if self.crlf() && input.starts_with(b"\r\n") {
                *input = &input[2..];
            } else if self.crlf() && input.starts_with(b"\r") {
                return if input.len() > 1 { Err("StrayCarriageReturn") } else { Ok(false) };
            } else {
                return Ok(!input.is_empty());
            }
            eols += 1;
            if eols > self.limits.max_eols {
                return Err("EolFlood");
            }
        }
    }

    /// The frame at the front and its length on the wire, if it is whole.
    fn frame(&self, input: &[u8], parts: bool) -> Result<Option<(Parsed, usize)>, &'static str> {
        let Some(Head { command, lines, len: head }) = self.head(input)? else { return Ok(None) };
        let headers = self.text(command, lines)?;
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length = length.map(|(_, value)| content_length(value)).transpose()?;
        let ignored = self.lenience.ignore_bodies && !command.may_have_body();
        let body_is_fine = command.may_have_body() || self.version == Some(Version::V1_0) || ignored;
        let limit = match self.limits {
            Limits { max_body, max_long_body, .. } if parts && command.may_have_body() => {
                max_long_body.max(max_body as u64)
            }
            Limits { max_body, .. } => max_body as u64,
        };
        if length.is_some_and(|length| length > limit) {
            return Err("BodyTooLong");
        }
        if length.is_some_and(|length| length > 0) && !body_is_fine {
            return Err("UnexpectedBody");
        }
        let mut body = Vec::new();
        for &octet in &input[head..] {
            let ends = match length {
                Some(length) if body.len() as u64 == length => {
                    if octet != 0 {
                        return Err("BodyNotTerminated");
                    }
                    true
                }
                Some(_) => false,
                None => octet == 0,
            };
            if ends {
                let used = head + body.len() + 1;
                if ignored {
                    body.clear();
                }
                return Ok(Some((Parsed { command, headers, body }, used)));
            }
            if !body_is_fine {
                return Err("UnexpectedBody");
            }
            if body.len() as u64 == limit {
                return Err("BodyTooLong");
            }
            body.push(octet);
        }
        Ok(None)
    }

    fn head(&self, input: &[u8]) -> Result<Option<Head>, &'static str> {
        let mut command = None;
        let mut lines = Vec::new();
        let mut headers = 0;
        let mut line = Vec::new();
        for (at, &octet) in input.iter().enumerate() {
            match octet {
                0 => return Err("NulInHead"),
                b'\n' => {
                    if self.crlf() && line.ends_with(b"\r") {
                        line.pop();
                    }
                    let line = std::mem::take(&mut line);
                    match command {
                        None => command = Some(Command::parse(&line).ok_or("UnknownCommand")?),
                        Some(command) if line.is_empty() => {
                            return Ok(Some(Head { command, lines, len: at + 1 }));
                        }
                        Some(_) => {
                            let line = self.header_line(&line)?;
                            headers += usize::from(matches!(line, Line::Header(..)));
                            if headers > self.limits.max_headers {
                                return Err("TooManyHeaders");
                            }
                            lines.push(line);
                        }
                    }
                }
                _ => {
                    line.push(octet);
                    // A CR may yet turn out to belong to the line's end.
                    let may_be_end = self.crlf() && octet == b'\r';
                    if line.len() - usize::from(may_be_end) > self.limits.max_line {
                        return Err("LineTooLong");
                    }
                }
            }
            if at + 1 == self.limits.max_head {
                return Err("HeadTooLong");
            }
        }
        Ok(None)
    }

    fn header_line(&self, line: &[u8]) -> Result<Line, &'static str> {
        let mut parts = line.splitn(2, |&octet| octet == b':').map(|part| self.trimmed(part));
        match (parts.next(), parts.next()) {
            (Some(name), Some(value)) if !name.is_empty() => Ok(Line::Header(name, value)),
            _ if self.crlf() && line.contains(&b'\r') => Err("StrayCarriageReturn"),
            _ if self.lenience.skip_bad_headers => Ok(Line::Skipped(line.to_vec())),
            (_, None) => Err("NoColon"),
            _ => Err("EmptyHeaderName"),
        }
    }

    fn trimmed(&self, text: &[u8]) -> Vec<u8> {
        let mut text = text.to_vec();
        while self.lenience.trim_headers && (text.ends_with(b" ") || text.ends_with(b"\t")) {
            text.pop();
        }
        while self.lenience.trim_headers && (text.starts_with(b" ") || text.starts_with(b"\t")) {
            text.remove(0);
        }
        text
    }

    fn text(&self, command: Command, lines: Vec<Line>) -> Result<Vec<(String, String)>, &'static str> {
        let utf8 = |octets| String::from_utf8(octets).map_err(|_| "NotUtf8");
        let mut headers = Vec::new();
        for line in lines {
            match line {
                Line::Header(name, value) => headers.push((utf8(name)?, utf8(value)?)),
                Line::Skipped(line) => drop(utf8(line)?),
            }
        }
        let escapes = match (command, self.version) {
            (Command::Connected, _) => "",
            (Command::Connect | Command::Stomp, _) if self.unescape_connect => "ncr\\",
            (Command::Connect | Command::Stomp, _) | (_, None | Some(Version::V1_0)) => "",
            (_, Some(Version::V1_1)) => "nc\\",
            (_, Some(Version::V1_2)) => "ncr\\",
        };
        headers
            .into_iter()
            .map(|(name, value)| {
                if self.crlf() && (name.contains('\r') || value.contains('\r')) {
                    return Err("StrayCarriageReturn");
                }
                Ok((unescape(&name, escapes)?, unescape(&value, escapes)?))
            })
            .collect()
    }
}

/// `escapes`: the letters that may follow a backslash; none means that a backslash is a backslash.
fn unescape(text: &str, escapes: &str) -> Result<String, &'static str> {
    if escapes.is_empty() {
        return Ok(text.to_owned());
    }
    let mut out = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match rest.next() {
            Some(letter) if escapes.contains(letter) => out.push(match letter {
                'n' => '\n',
                'c' => ':',
                'r' => '\r',
                other => other,
            }),
            _ => return Err("BadEscape"),
        }
    }
    Ok(out)
}

fn content_length(value: &str) -> Result<u64, &'static str> {
    let digits = !value.is_empty() && value.chars().all(|c| c.is_ascii_digit());
    digits.then(|| value.parse().ok()).flatten().ok_or("BadContentLength")
}

/// The name of an error's variant, to be compared with [`End::Error`].
pub(crate) fn variant(error: &DecodeError) -> &'static str {
    match error {
        DecodeError::UnknownCommand(_) => "UnknownCommand",
        DecodeError::NoColon(_) => "NoColon",
        DecodeError::EmptyHeaderName => "EmptyHeaderName",
        DecodeError::BadEscape { .. } => "BadEscape",
        DecodeError::StrayCarriageReturn => "StrayCarriageReturn",
        DecodeError::NulInHead => "NulInHead",
        DecodeError::NotUtf8 => "NotUtf8",
        DecodeError::BadContentLength(_) => "BadContentLength",
        DecodeError::BodyNotTerminated => "BodyNotTerminated",
        DecodeError::UnexpectedBody(_) => "UnexpectedBody",
        DecodeError::LineTooLong { .. } => "LineTooLong",
        DecodeError::TooManyHeaders { .. } => "TooManyHeaders",
        DecodeError::HeadTooLong { .. } => "HeadTooLong",
        DecodeError::BodyTooLong { .. } => "BodyTooLong",
        DecodeError::EolFlood { .. } => "EolFlood",
        other => panic!("a new variant: {other:?}"),
    }
}
