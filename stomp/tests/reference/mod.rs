//! A second decoder, written to be obviously right rather than fast: one octet at a time, every line copied, nothing
//! shared with the real one but the names of its types.

use stompwire::proto::{Command, DecodeError, Limits, Version};

/// What is in force.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// `None`: before the handshake.
    pub(crate) version: Option<Version>,
    pub(crate) limits: Limits,
    pub(crate) unescape_connect: bool,
}

/// One frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parsed {
    pub(crate) command: Command,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// How the input ends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// So many octets are not consumed yet.
    Left(usize),
    /// The variant of the error.
    Error(&'static str),
}

/// All frames of the input, and how it ends.
pub(crate) fn parse(mut input: &[u8], rules: &Rules) -> (Vec<Parsed>, End) {
    let mut frames = Vec::new();
    loop {
        match rules.skip_eols(&mut input) {
            Ok(true) => {}
            Ok(false) => return (frames, End::Left(input.len())),
            Err(error) => return (frames, End::Error(error)),
        }
        match rules.frame(input) {
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
    fn frame(&self, input: &[u8]) -> Result<Option<(Parsed, usize)>, &'static str> {
        let Some((command, headers, head)) = self.head(input)? else { return Ok(None) };
        let headers = self.text(command, headers)?;
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length = length.map(|(_, value)| content_length(value)).transpose()?;
        let body_is_fine = command.may_have_body() || self.version == Some(Version::V1_0);
        if length.is_some_and(|length| length > self.limits.max_body as u64) {
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
                return Ok(Some((Parsed { command, headers, body }, used)));
            }
            if !body_is_fine {
                return Err("UnexpectedBody");
            }
            if body.len() == self.limits.max_body {
                return Err("BodyTooLong");
            }
            body.push(octet);
        }
        Ok(None)
    }

    /// Command, raw headers and the length of the head.
    #[expect(clippy::type_complexity, reason = "private to this parser")]
    fn head(&self, input: &[u8]) -> Result<Option<(Command, Vec<(Vec<u8>, Vec<u8>)>, usize)>, &'static str> {
        let mut command = None;
        let mut headers = Vec::new();
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
                        Some(command) if line.is_empty() => return Ok(Some((command, headers, at + 1))),
                        Some(_) => {
                            if headers.len() == self.limits.max_headers {
                                return Err("TooManyHeaders");
                            }
                            headers.push(self.header(&line)?);
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

    fn header(&self, line: &[u8]) -> Result<(Vec<u8>, Vec<u8>), &'static str> {
        let stray = self.crlf() && line.contains(&b'\r');
        let colon = match line.iter().position(|&octet| octet == b':') {
            None | Some(0) if stray => return Err("StrayCarriageReturn"),
            None => return Err("NoColon"),
            Some(0) => return Err("EmptyHeaderName"),
            Some(colon) => colon,
        };
        Ok((line[..colon].to_vec(), line[colon + 1..].to_vec()))
    }

    fn text(
        &self,
        command: Command,
        headers: Vec<(Vec<u8>, Vec<u8>)>,
    ) -> Result<Vec<(String, String)>, &'static str> {
        let utf8 = |octets| String::from_utf8(octets).map_err(|_| "NotUtf8");
        let headers: Vec<(String, String)> = headers
            .into_iter()
            .map(|(name, value)| Ok((utf8(name)?, utf8(value)?)))
            .collect::<Result<_, &'static str>>()?;
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
