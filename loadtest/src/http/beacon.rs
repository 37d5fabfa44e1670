//! Beacons as browsers send them, built once and patched with a sequence number each time.
//!
//! A GET is an image request with about 230 octets of query string; a POST is what `navigator.sendBeacon` makes of a
//! string of about 400 octets. Both carry `seq=` and [`SEQ_DIGITS`] digits in the query, the POST in its body as well.
//!
//! A larger corpus ([`Mix::corpus`]) has longer ones among them, as sites with custom dimensions and campaigns send, and its
//! skew makes some pages far more common than others, as they are.

use std::fmt::Write as _;

use fastrand::Rng;

use crate::http::{Target, skew::Skew};

/// Digits of a sequence number, padded with zeros.
pub const SEQ_DIGITS: usize = 12;

/// Warm-up beacons are numbered from here, out of the way of those that count.
pub const WARMUP_SEQ: u64 = 900_000_000_000;

/// Different beacons of each kind, unless asked otherwise. Few, so that the templates stay in the processor's cache.
pub const VARIANTS: usize = 16;

/// What a run's beacons are like.
#[derive(Debug, Clone, PartialEq)]
pub struct Mix {
    /// Share of POSTs, 0 to 100.
    pub post_percent: u8,
    /// Octets of the POSTs' bodies, in turn; empty for those of [`Beacons`]' own, about 400. A body is never shorter than
    /// what it has to say.
    pub post_octets: Vec<usize>,
    /// Different beacons of each kind. Above [`VARIANTS`] some of them are longer.
    pub corpus: usize,
    /// Zipf's exponent: how much more common one is than the next; 0 for all alike.
    pub skew: f64,
}

impl Default for Mix {
    fn default() -> Self {
        Self { post_percent: 0, post_octets: Vec::new(), corpus: VARIANTS, skew: 0.0 }
    }
}

/// The beacons of one run: which template a sequence number gets is fixed by the number alone.
#[derive(Debug)]
pub struct Beacons {
    gets: Vec<Template>,
    posts: Vec<Template>,
    post_percent: u64,
    skew: Skew,
}

impl Beacons {
    /// Builds the templates for `target`.
    pub fn new(target: &Target, mix: &Mix) -> Self {
        // A fixed seed: every run sends the same octets, which makes runs comparable.
        let mut rng = Rng::with_seed(0x00BE_AC04);
        let corpus = mix.corpus.max(1);
        let pages: Vec<Page> = (0..corpus).map(|place| Page::invent(&mut rng, place >= VARIANTS)).collect();
        let octets = |place: usize| mix.post_octets.get(place % mix.post_octets.len().max(1)).copied();
        let posts = 0..corpus.max(mix.post_octets.len());
        Self {
            gets: pages.iter().map(|page| Template::get(target, page)).collect(),
            posts: posts.map(|place| Template::post(target, &pages[place % corpus], octets(place))).collect(),
            post_percent: u64::from(mix.post_percent.min(100)),
            skew: Skew::new(corpus, mix.skew),
        }
    }

    /// Puts the octets of beacon `seq` into `out`, which keeps its capacity. Of any hundred consecutive numbers exactly
    /// `post_percent` are POSTs, evenly spread. With `last` it tells the server to close the connection afterwards.
    pub fn render(&self, seq: u64, last: bool, out: &mut Vec<u8>) {
        let templates = if self.is_post(seq) { &self.posts } else { &self.gets };
        let template = &templates[self.skew.place(seq, templates.len())];
        out.clear();
        out.extend_from_slice(&template.octets);
        for &at in &template.seq_at {
            write_seq(seq, &mut out[at..at + SEQ_DIGITS]);
        }
        if last {
            out.splice(template.keep_alive_at..template.keep_alive_at + KEEP_ALIVE.len(), *b"close");
        }
    }

    /// Whether beacon `seq` is a POST.
    pub fn is_post(&self, seq: u64) -> bool {
        let place = seq % 100;
        (place + 1) * self.post_percent / 100 != place * self.post_percent / 100
    }

    /// The octets of the longest beacon.
    pub fn longest(&self) -> usize {
        self.gets.iter().chain(&self.posts).map(|template| template.octets.len()).max().unwrap_or(0)
    }
}

/// The octets of a request and where in them the sequence number goes.
#[derive(Debug)]
struct Template {
    octets: Vec<u8>,
    seq_at: Vec<usize>,
    keep_alive_at: usize,
}

/// The value of `Connection`, which is before anything that a page could say.
const KEEP_ALIVE: &str = "keep-alive";

/// Stands where the sequence number goes.
const HOLE: &str = "############";

impl Template {
    fn get(target: &Target, page: &Page) -> Self {
        let Page {
            event,
            path,
            referrer,
            screen,
            viewport,
            ratio,
            language,
            agent,
            visitor,
            session,
            timing,
            extra,
            ..
        } = page;
        let query = format!(
            "seq={HOLE}&ev={event}&cid={visitor}&sid={session}&dl=https%3A%2F%2Fshop.example{path}&dr=https%3A%2F%2F{referrer}%2F\
             &sr={screen}&vp={viewport}&dpr={ratio}&ul={language}&nt={timing}&et={}{extra}",
            page.visible_ms,
        );
        Self::new(format!(
            "GET {}{query} HTTP/1.1\r\n\
             Host: {}\r\n\
             Connection: keep-alive\r\n\
             User-Agent: {agent}\r\n\
             Accept: image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8\r\n\
             Sec-Fetch-Site: cross-site\r\n\
             Sec-Fetch-Mode: no-cors\r\n\
             Sec-Fetch-Dest: image\r\n\
             Referer: https://shop.example/\r\n\
             Accept-Encoding: gzip, deflate, br\r\n\
             Accept-Language: {language},en;q=0.8\r\n\r\n",
            target.path_and_query, target.host,
        ))
    }

    /// With a body of `octets`, or as long as it comes.
    fn post(target: &Target, page: &Page, octets: Option<usize>) -> Self {
        let Page {
            event,
            path,
            referrer,
            screen,
            viewport,
            ratio,
            language,
            agent,
            visitor,
            session,
            timing,
            ..
        } = page;
        let body = format!(
            "{{\"seq\":\"{HOLE}\",\"ev\":\"{event}\",\"cid\":\"{visitor}\",\"sid\":\"{session}\",\
             \"consent\":\"analytics\",\"page\":{{\"url\":\"https://shop.example{}\",\
             \"referrer\":\"https://{referrer}/\",\"title\":\"{}\",\"lang\":\"{language}\"}},\
             \"screen\":{{\"size\":\"{screen}\",\"viewport\":\"{viewport}\",\"ratio\":{ratio}}},\
             \"timing\":{{\"nav\":\"{timing}\",\"visible_ms\":{},\"scroll_percent\":{}}}}}",
            path.replace("%2F", "/"),
            page.title,
            page.visible_ms,
            page.scroll_percent,
        );
        let missing = octets.unwrap_or(0).saturating_sub(body.len());
        let body = match missing.checked_sub(",\"items\":\"\"".len()) {
            Some(filler) => format!(
                "{},\"items\":\"{}\"}}",
                &body[..body.len() - 1],
                "sku-4711,".repeat(filler / 9 + 1).split_at(filler).0
            ),
            None => body,
        };
        Self::new(format!(
            "POST {}seq={HOLE} HTTP/1.1\r\n\
             Host: {}\r\n\
             Connection: keep-alive\r\n\
             Content-Length: {}\r\n\
             User-Agent: {agent}\r\n\
             Content-Type: text/plain;charset=UTF-8\r\n\
             Accept: */*\r\n\
             Origin: https://shop.example\r\n\
             Sec-Fetch-Site: cross-site\r\n\
             Sec-Fetch-Mode: no-cors\r\n\
             Sec-Fetch-Dest: empty\r\n\
             Referer: https://shop.example/\r\n\
             Accept-Encoding: gzip, deflate, br\r\n\
             Accept-Language: {language},en;q=0.8\r\n\r\n{body}",
            target.path_and_query,
            target.host,
            body.len(),
        ))
    }

    fn new(request: String) -> Self {
        let seq_at = request.match_indices(HOLE).map(|(at, _)| at).collect();
        let keep_alive_at =
            request.find(KEEP_ALIVE).expect("both kinds of request are written with it, above");
        Self { octets: request.into_bytes(), seq_at, keep_alive_at }
    }
}

/// What one page view is made of.
struct Page {
    event: &'static str,
    /// With `/` as `%2F`, as it stands in a query string.
    path: String,
    title: &'static str,
    referrer: &'static str,
    screen: &'static str,
    viewport: &'static str,
    ratio: &'static str,
    language: &'static str,
    agent: &'static str,
    visitor: String,
    session: String,
    /// Milliseconds to first octet, interactive, loaded.
    timing: String,
    visible_ms: u32,
    scroll_percent: u32,
    /// More parameters, of pages that have them.
    extra: String,
}

impl Page {
    fn invent(rng: &mut Rng, may_be_long: bool) -> Self {
        let (screen, viewport, ratio, agent) = pick(rng, &DEVICES);
        let (section, title) = pick(rng, &SECTIONS);
        Self {
            event: pick(rng, &["page_view", "add_cart", "scrolled", "page_hide"]),
            path: format!("%2F{section}%2F{}", rng.u32(10_000_000..99_999_999)),
            title,
            referrer: pick(rng, &["www.search.example", "news.example", "mail.example"]),
            screen,
            viewport,
            ratio,
            language: pick(rng, &["en-GB", "de-DE", "fr-FR", "pt-BR"]),
            agent,
            visitor: format!("{:016x}", rng.u64(..)),
            session: format!("{:016x}", rng.u64(..)),
            timing: format!("{}.{}.{}", rng.u32(20..99), rng.u32(200..999), rng.u32(1000..4000)),
            visible_ms: rng.u32(1000..90_000),
            scroll_percent: rng.u32(0..=100),
            extra: if may_be_long { extra(rng) } else { String::new() },
        }
    }
}

/// Custom dimensions and campaigns: most pages have few, some have kilobytes of them.
fn extra(rng: &mut Rng) -> String {
    let octets = match rng.u32(0..100) {
        0..60 => 0,
        60..85 => rng.usize(40..300),
        85..97 => rng.usize(300..1000),
        _ => rng.usize(1000..4000),
    };
    let mut text = String::new();
    for number in 1.. {
        if text.len() >= octets {
            break;
        }
        // Writing to a String cannot fail.
        write!(
            text,
            "&cd{number}={:08x}%7C{}",
            rng.u32(..),
            pick(rng, &["newsletter", "spring%20sale", "returning"])
        )
        .unwrap_or_default();
    }
    text
}

const SECTIONS: [(&str, &str); 3] = [
    ("shoes%2Frunning", "Trail running shoes for wet ground"),
    ("books%2Fhistory", "A short history of the lighthouse"),
    ("garden%2Ftools", "Pruning shears with spare blades"),
];

/// Screen, viewport, pixel ratio and user agent that go together.
const DEVICES: [(&str, &str, &str, &str); 4] = [
    (
        "1920x1080",
        "1903x969",
        "1",
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36",
    ),
    (
        "1512x982",
        "1512x823",
        "2",
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Safari/605.1.15",
    ),
    (
        "412x915",
        "412x785",
        "2.6",
        "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Mobile Safari/537.36",
    ),
    (
        "2560x1440",
        "2543x1289",
        "1.5",
        "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0",
    ),
];

fn pick<T: Copy>(rng: &mut Rng, choices: &[T]) -> T {
    choices[rng.usize(..choices.len())]
}

/// Decimal, zero-padded to the length of `place`.
fn write_seq(mut seq: u64, place: &mut [u8]) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (seq % 10) as u8;
        seq /= 10;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn target() -> Target {
        Target::parse("http://127.0.0.1:8080/b.gif", false).unwrap()
    }

    fn beacons(post_percent: u8) -> Beacons {
        Beacons::new(&target(), &Mix { post_percent, ..Mix::default() })
    }

    fn rendered(beacons: &Beacons, seq: u64) -> String {
        let mut out = b"left over from before".to_vec();
        beacons.render(seq, false, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_get_has_the_size_and_the_fields_of_a_browsers_pixel_request() {
        let beacons = beacons(0);
        let mut seen = HashSet::new();
        for seq in 0..VARIANTS as u64 {
            let text = rendered(&beacons, seq);
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert_eq!(body, "");
            // Servers with one KiB for a head, nginx among them, need no second buffer for it.
            assert!(text.len() < 1024, "{}", text.len());
            let request_line = head.lines().next().unwrap();
            let query = request_line.strip_prefix("GET /b.gif?").unwrap().strip_suffix(" HTTP/1.1").unwrap();
            assert!((215..=245).contains(&query.len()), "{} octets: {query}", query.len());
            assert!(query.starts_with(&format!("seq={seq:012}&ev=")), "{query}");
            for field in
                ["Host: 127.0.0.1:8080", "User-Agent: Mozilla/5.0 (", "Accept: image/", "Referer: https://"]
            {
                assert!(head.lines().any(|line| line.starts_with(field)), "{field} in {head}");
            }
            seen.insert(query[17..].to_owned());
        }
        assert!(seen.len() > VARIANTS / 2, "only {} different beacons", seen.len());
    }

    #[test]
    fn a_post_carries_its_number_in_query_and_body() {
        let beacons = beacons(100);
        for seq in [0, 7, 123_456_789_012, 999_999_999_999] {
            let text = rendered(&beacons, seq);
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("POST /b.gif?seq={seq:012} HTTP/1.1\r\n")), "{head}");
            assert!(head.contains("\r\nContent-Type: text/plain;charset=UTF-8\r\n"));
            assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())));
            assert!((370..=430).contains(&body.len()), "{} octets: {body}", body.len());
            let json: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(json["seq"], format!("{seq:012}"));
        }
    }

    #[test]
    fn the_share_of_posts_is_exact_in_every_hundred() {
        for percent in [0, 1, 30, 50, 99, 100] {
            let beacons = beacons(percent);
            for start in [0, 37, 4_200_000] {
                let posts = (start..start + 100).filter(|&seq| beacons.is_post(seq)).count();
                assert_eq!(posts, usize::from(percent), "from {start}");
            }
            let posts = (0..1000).filter(|&seq| rendered(&beacons, seq).starts_with("POST")).count();
            assert_eq!(posts, usize::from(percent) * 10);
        }
    }

    #[test]
    fn bodies_have_the_octets_asked_for_in_turn() {
        let mix = Mix { post_percent: 100, post_octets: vec![1, 600, 4096], ..Mix::default() };
        let beacons = Beacons::new(&target(), &mix);
        let lengths: Vec<usize> = (0..3)
            .map(|seq| {
                let text = rendered(&beacons, seq);
                let (head, body) = text.split_once("\r\n\r\n").unwrap();
                assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())));
                serde_json::from_str::<serde_json::Value>(body).unwrap();
                body.len()
            })
            .collect();
        assert!((370..=430).contains(&lengths[0]));
        assert_eq!(lengths[1..], [600, 4096]);
    }

    #[test]
    fn the_last_beacon_of_a_connection_says_so() {
        for percent in [0, 100] {
            let mut out = Vec::new();
            let beacons = beacons(percent);
            beacons.render(7, true, &mut out);
            let closing = String::from_utf8(out).unwrap();
            assert_eq!(
                closing.replace("Connection: close\r\n", "Connection: keep-alive\r\n"),
                rendered(&beacons, 7)
            );
        }
    }

    #[test]
    fn a_large_corpus_has_long_beacons_and_a_skewed_one_common_ones() {
        let mix = Mix { corpus: 2000, skew: 1.0, ..Mix::default() };
        let beacons = Beacons::new(&target(), &mix);
        let mut seen = std::collections::HashMap::new();
        for seq in 0..20_000 {
            let text = rendered(&beacons, seq);
            *seen.entry(text.replace(&format!("{seq:012}"), "")).or_insert(0u32) += 1;
        }
        let longest = seen.keys().map(String::len).max().unwrap();
        let commonest = seen.values().copied().max().unwrap();
        assert!((2000..8192).contains(&longest), "{longest}");
        assert!(seen.len() > 500, "{}", seen.len());
        // 1 ÷ H(2000) of 20,000 is about 2,450.
        assert!((2000..3000).contains(&commonest), "{commonest}");
    }
}
