//! The page for people. Plain HTML, no script, no request to anywhere.

use std::fmt::Write as _;

use crate::{ledger::DropReason, metrics::DestinationReading, spool::State};

/// What the page shows.
#[derive(Debug)]
pub(super) struct Page<'a> {
    pub(super) destinations: &'a [(&'a str, DestinationReading)],
    pub(super) reasons: &'a [String],
    /// Where the pixel is.
    pub(super) pixel: &'a str,
    /// The newest lines at the embedded broker, newest first.
    pub(super) latest: Option<&'a [String]>,
    pub(super) uptime_seconds: u64,
}

const STYLE: &str = "\
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse}\
td,th{text-align:right;padding:.2rem .8rem;border-bottom:1px solid #8884}\
th:first-child,td:first-child,.text{text-align:left}\
pre{overflow:auto;background:#8882;padding:.8rem;border-radius:.3rem;white-space:pre-wrap;overflow-wrap:anywhere}\
.ready{color:#183}.waiting{color:#b40}@media(prefers-color-scheme:dark){.ready{color:#6d8}.waiting{color:#fa6}}";

impl Page<'_> {
    pub(super) fn render(&self) -> String {
        let mut out = String::with_capacity(8 * 1024);
        // Writing to a string cannot fail.
        self.write(&mut out).unwrap_or_default();
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let version = env!("CARGO_PKG_VERSION");
        write!(
            out,
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>beacon-edge</title>\
             <meta name=\"viewport\" content=\"width=device-width\"><meta http-equiv=\"refresh\" content=\"2\">\
             <link rel=\"icon\" href=\"data:,\"><style>{STYLE}</style></head><body>\
             <h1>beacon-edge {version}</h1>"
        )?;
        let uptime = self.uptime_seconds;
        if self.reasons.is_empty() {
            writeln!(out, "<p class=\"ready\">Ready. Up for {uptime} s.</p>")?;
        } else {
            writeln!(out, "<p class=\"waiting\">Not ready. Up for {uptime} s.</p><ul>")?;
            for reason in self.reasons {
                writeln!(out, "<li>{}</li>", escape(reason))?;
            }
            out.push_str("</ul>");
        }
        self.beacons(out)?;
        self.spools(out)?;
        self.connections(out)?;
        if let Some(latest) = self.latest {
            self.latest(latest, out)?;
        }
        out.push_str(
            "<p><a href=\"/metrics\">metrics</a> · <a href=\"/readyz\">readyz</a> · \
             <a href=\"/healthz\">healthz</a></p></body></html>\n",
        );
        Ok(())
    }

    fn beacons(&self, out: &mut String) -> std::fmt::Result {
        out.push_str(
            "<h2>Beacons</h2><table><tr><th>destination</th><th>accepted</th><th>confirmed</th><th>on ring</th>\
             <th>in batch</th><th>spooled</th><th>in flight</th><th>dropped</th><th>rejected</th></tr>",
        );
        for (name, read) in self.destinations {
            let seen = &read.beacons;
            writeln!(
                out,
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                escape(name),
                seen.accepted,
                seen.confirmed,
                seen.on_ring,
                seen.in_batch,
                seen.spooled,
                seen.in_flight,
                seen.dropped_total(),
                seen.rejected
            )?;
        }
        out.push_str("</table>");
        for (name, read) in self.destinations.iter().filter(|(_, read)| read.beacons.dropped_total() > 0) {
            let reasons: Vec<String> = DropReason::ALL
                .iter()
                .filter(|&&reason| read.beacons.dropped_for(reason) > 0)
                .map(|&reason| format!("{} {}", reason.label(), read.beacons.dropped_for(reason)))
                .collect();
            writeln!(out, "<p>Dropped at {}: {}.</p>", escape(name), reasons.join(", "))?;
        }
        Ok(())
    }

    fn spools(&self, out: &mut String) -> std::fmt::Result {
        let spools =
            || self.destinations.iter().filter_map(|(name, read)| Some((name, read, read.spool.as_ref()?)));
        if spools().next().is_none() {
            return Ok(());
        }
        out.push_str(
            "<h2>Spools</h2><table><tr><th>destination</th><th class=\"text\">state</th><th>batches</th>\
             <th>beacons</th><th>octets</th><th>recovered</th></tr>",
        );
        for (name, read, spool) in spools() {
            let reason = match &spool.state {
                State::Failing(reason) => format!(": {reason}"),
                _ => String::new(),
            };
            writeln!(
                out,
                "<tr><td>{}</td><td class=\"text\">{}{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                escape(name),
                spool.state_label(),
                escape(&reason),
                spool.level.batches,
                spool.level.beacons,
                spool.level.octets,
                read.beacons.recovered
            )?;
        }
        out.push_str("</table>");
        Ok(())
    }

    fn connections(&self, out: &mut String) -> std::fmt::Result {
        out.push_str(
            "<h2>Connections to brokers</h2><table><tr><th>destination</th><th class=\"text\">broker</th>\
             <th class=\"text\">state</th><th>frames in flight</th><th class=\"text\">last error</th></tr>",
        );
        for (name, read) in self.destinations {
            for lane in &read.lanes {
                writeln!(
                    out,
                    "<tr><td>{}</td><td class=\"text\">{}</td><td class=\"text\">{} for {} s</td><td>{}</td>\
                     <td class=\"text\">{}</td></tr>",
                    escape(name),
                    escape(&lane.broker),
                    lane.state.as_str(),
                    lane.since.elapsed().as_secs(),
                    lane.in_flight,
                    escape(lane.last_error.as_deref().unwrap_or(""))
                )?;
            }
        }
        out.push_str("</table>");
        Ok(())
    }

    fn latest(&self, latest: &[String], out: &mut String) -> std::fmt::Result {
        let pixel = escape(self.pixel);
        writeln!(
            out,
            "<h2>At the embedded broker</h2><p>In memory, for a first look; the oldest messages go when it is full. \
             Send a beacon: <a href=\"{pixel}?event=hello\">{pixel}?event=hello</a></p>"
        )?;
        if latest.is_empty() {
            out.push_str("<p>No beacon yet.</p>");
        }
        for line in latest {
            writeln!(out, "<pre>{}</pre>", escape(line.trim_end()))?;
        }
        Ok(())
    }
}

/// Everything from outside goes through here: a beacon may hold any text.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beacon_cannot_put_a_script_on_the_page() {
        let latest = ["{\"query\":\"<script>alert('x')</script>\"}\n".to_owned()];
        let page = Page {
            destinations: &[],
            reasons: &["<b>".to_owned()],
            pixel: "http://127.0.0.1/b.gif",
            latest: Some(&latest),
            uptime_seconds: 1,
        };
        let html = page.render();
        assert!(!html.contains("<script") && !html.contains("<b>"), "{html}");
        assert!(html.contains("&lt;script&gt;alert(&#39;x&#39;)"), "{html}");
    }
}
