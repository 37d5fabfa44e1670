//! How many beacons a model has accepted and confirmed, asked of its processes.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// The longest wait for an answer; a process that is starved of CPU still answers within it.
const LIMIT: Duration = Duration::from_secs(5);

/// The longest answer that is read.
const MOST: u64 = 256 * 1024;

/// Beacons since the start of the model's processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Answered as taken.
    pub(crate) accepted: u64,
    /// Confirmed by the broker.
    pub(crate) confirmed: u64,
}

impl Counts {
    /// Accepted and not confirmed.
    pub(crate) fn backlog(&self) -> u64 {
        self.accepted.saturating_sub(self.confirmed)
    }
}

/// Reads the counts of a baseline server or agent. Blocks, at most a few seconds.
pub(crate) fn of_baseline(address: SocketAddr) -> io::Result<Counts> {
    let mut text = String::new();
    connect(address)?.take(MOST).read_to_string(&mut text)?;
    let value = |name: &str| number(&text, name);
    Ok(Counts { accepted: value("accepted")?, confirmed: value("confirmed")? })
}

/// Reads the counts of beacon-edge's metrics. Blocks, at most a few seconds.
pub(crate) fn of_edge(admin: SocketAddr) -> io::Result<Counts> {
    let mut stream = connect(admin)?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.take(MOST).read_to_string(&mut text)?;
    let value = |name: &str| number(&text, &format!("beacon_edge_beacons_{name}_total"));
    // Confirmed is read from the same scrape: the edge's own identity holds in it.
    Ok(Counts { accepted: value("accepted")?, confirmed: value("confirmed")? })
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// The sum of what stands behind `name`, with or without labels.
fn number(text: &str, name: &str) -> io::Result<u64> {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let labels = rest.starts_with([' ', '{']);
        labels.then(|| rest.rsplit(' ').next()?.parse::<u64>().ok()).flatten()
    });
    values
        .reduce(|sum, value| sum + value)
        .ok_or_else(|| io::Error::other(format!("no {name} in what it says")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_with_and_without_labels() {
        let text = "# TYPE a counter\na{destination=\"main\"} 7\na{destination=\"b\"} 5\nab 3\nb 2\n";
        assert_eq!(number(text, "a").unwrap(), 12);
        assert_eq!(number(text, "b").unwrap(), 2);
        assert!(number(text, "c").unwrap_err().to_string().contains("no c in"));
    }
}
