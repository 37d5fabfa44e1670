//! Several brokers in one text.

use super::{BrokerUrl, UrlError};

impl BrokerUrl {
    /// Most URLs in a list.
    pub const MAX_LIST: usize = 64;

    /// Several brokers of one cluster, in the order written: hosts that share all the rest,
    /// `stomp://user:password@a:61613,b:61613/vhost`, or whole URLs, `stomp://a/vhost,stomp+ssl://b/vhost`. Blanks
    /// around a comma do not count. Inside a vhost or path a comma is written `%2C`.
    ///
    /// # Errors
    /// [`UrlError`], for a list of more than [`BrokerUrl::MAX_LIST`] too.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, UrlError> {
        let mut urls = Vec::new();
        for whole in split_before_schemes(text) {
            let (before, hosts, after) = split_around_hosts(whole)?;
            for host in hosts.split(',') {
                if urls.len() == Self::MAX_LIST {
                    return Err(UrlError::List("more than 64 brokers in one list"));
                }
                urls.push(format!("{before}{}{after}", host.trim()).parse()?);
            }
        }
        Ok(urls)
    }
}

/// The list in pieces that begin with a scheme each.
fn split_before_schemes(list: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(list);
    std::iter::from_fn(move || {
        let text = rest?;
        let comma = text.match_indices(',').map(|(at, _)| at).find(|at| begins_with_scheme(&text[at + 1..]));
        rest = comma.map(|at| &text[at + 1..]);
        Some(text[..comma.unwrap_or(text.len())].trim())
    })
}

/// No user, password or host can look like this: a slash ends all of them.
fn begins_with_scheme(text: &str) -> bool {
    let is_of_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    text.trim_start().trim_start_matches(is_of_scheme).starts_with("://")
}

/// Scheme, user and password; the hosts with their ports; path and query.
fn split_around_hosts(url: &str) -> Result<(&str, &str, &str), UrlError> {
    let authority = url.find("://").map_or(0, |at| at + 3);
    let after = url[authority..].find(['/', '?', '#']).map_or(url.len(), |at| authority + at);
    let hosts = url[authority..after].rfind('@').map_or(authority, |at| authority + at + 1);
    if url[authority..after].matches('@').count() > 1 {
        return Err(UrlError::List("user and password come once, before the first host; or list whole URLs"));
    }
    if url[after..].contains(',') {
        return Err(UrlError::List("all hosts come before the path; a comma in a vhost is written %2C"));
    }
    Ok((&url[..hosts], &url[hosts..after], &url[after..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_hosts_that_share_the_rest_or_whole_urls() {
        let table: [(&str, &[&str]); 6] = [
            ("stomp://h/v", &["stomp://h:61613/v"]),
            (
                "stomp://u:p@a:1,b:2,[::1]/v",
                &["stomp://u:***@a:1/v", "stomp://u:***@b:2/v", "stomp://u:***@[::1]:61613/v"],
            ),
            ("stomp://a/v,stomp://u@b:2/", &["stomp://a:61613/v", "stomp://u@b:2/%2F"]),
            (
                " stomp://a , stomp://b, c/v ",
                &["stomp://a:61613/%2F", "stomp://b:61613/v", "stomp://c:61613/v"],
            ),
            // A comma in a password may stand as it is, in a vhost it is escaped.
            ("stomp://u:p,w@a,b/v%2Cw", &["stomp://u:***@a:61613/v,w", "stomp://u:***@b:61613/v,w"]),
            ("stomp://a-b.c,d", &["stomp://a-b.c:61613/%2F", "stomp://d:61613/%2F"]),
        ];
        for (text, expected) in table {
            let urls = BrokerUrl::parse_list(text).unwrap();
            assert_eq!(urls.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{text}");
        }
        assert_eq!(BrokerUrl::parse_list("stomp://u:p,w@a,b").unwrap()[1].passcode(), Some("p,w"));
    }

    #[test]
    fn a_bad_list_says_what_would_be_right_and_repeats_nothing() {
        let long = format!("stomp://u:hunter2@h{}", ",h".repeat(BrokerUrl::MAX_LIST));
        assert_eq!(BrokerUrl::parse_list(&long[..long.len() - 2]).unwrap().len(), BrokerUrl::MAX_LIST);
        let bad = [
            ("", "write stomp://"),
            (",", "write stomp://"),
            ("a,b", "write stomp://"),
            ("stomp://a,,b", "write stomp://"),
            ("stomp://a,", "write stomp://"),
            ("stomp://a/,", "before the path"),
            ("stomp://a/v,b:2", "before the path"),
            ("stomp://u:hunter2@a,u:hunter2@b/", "before the first host"),
            ("stomp://a,amqp://u:hunter2@b", "the scheme is \"amqp\""),
            (&long, "more than 64"),
        ];
        for (text, remedy) in bad {
            let error = BrokerUrl::parse_list(text).unwrap_err().to_string();
            assert!(error.contains(remedy), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
