//! The result of `loadtest http` as a table for people.

use std::fmt::{self, Write};

use crate::{
    http::{
        idle::IdleFigures,
        reference::Comparison,
        report::{Figures, Report},
        stats::{Connects, Failures},
    },
    report::{grouped, human_us},
};

/// Writes the whole table.
pub(crate) fn write_report(out: &mut String, report: &Report) -> fmt::Result {
    let figures = &report.figures;
    writeln!(out, "loadtest http {}", report.url)?;
    if report.mode != "idle" {
        let pace = match &figures.open_loop {
            Some(open) => format!("open loop at {} requests/s", open.asked_rate),
            None => "closed loop".to_owned(),
        };
        let threads =
            if report.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", report.threads) };
        let pinned = if report.pinned { " pinned" } else { "" };
        writeln!(
            out,
            "  {pace}, {} connections, {threads}{pinned}, {:.2} s, {} % POST",
            report.connections, figures.window_s, report.post_percent,
        )?;
        write_figures(out, figures, report.first_seq, report.next_seq)?;
    }
    if let Some(idle) = &report.idle {
        write_idle(out, idle)?;
    }
    if let Some(slow) = &report.slow {
        writeln!(
            out,
            "  slow       {} clients, {} connections: {} cut off with 408, {} closed, {} answered otherwise, the longest after \
             {} ms",
            slow.connections, slow.opened, slow.timed_out, slow.closed, slow.answered, slow.longest_ms
        )?;
    }
    if let Some(verdict) = &report.verify {
        writeln!(
            out,
            "  far end    {}: {} answered with 2xx, {} of them missing; {} there without such an answer, {} twice, in {} messages",
            if verdict.conserved { "nothing is missing" } else { "BEACONS ARE MISSING" },
            grouped(verdict.answered),
            grouped(verdict.missing),
            grouped(verdict.unanswered),
            grouped(verdict.duplicates),
            grouped(verdict.messages),
        )?;
    }
    if let Some(comparison) = &report.reference {
        write_comparison(out, comparison, report.pinned)?;
    }
    for note in &report.notes {
        writeln!(out, "  note       {note}")?;
    }
    Ok(())
}

fn write_figures(out: &mut String, figures: &Figures, first_seq: u64, next_seq: u64) -> fmt::Result {
    writeln!(
        out,
        "  requests   {} answered of {} sent, {}/s (seq {first_seq} up to {next_seq}, without it)",
        grouped(figures.requests_answered),
        grouped(figures.requests_sent),
        grouped(figures.requests_per_second as u64),
    )?;
    if let Some(open) = &figures.open_loop {
        writeln!(
            out,
            "  schedule   {}/s achieved of {}/s asked; {} due, {} unsent, {} behind schedule; generator late by \
             {} (p50), {} (p99)",
            grouped(open.achieved_rate as u64),
            grouped(open.asked_rate as u64),
            grouped(open.requests_due),
            grouped(open.requests_unsent),
            grouped(open.requests_behind_schedule),
            human_us(open.send_delay_p50_us),
            human_us(open.send_delay_p99_us),
        )?;
    }
    let statuses: Vec<String> =
        figures.statuses.iter().map(|(status, count)| format!("{status}: {}", grouped(*count))).collect();
    writeln!(
        out,
        "  statuses   {}",
        if statuses.is_empty() { "none".to_owned() } else { statuses.join(", ") }
    )?;
    let Failures { closed, timeout, malformed, abandoned } = figures.failures;
    let Connects { planned, reconnects, failed, given_up } = figures.connects;
    let errors: Vec<String> = [
        (closed, "closed before the answer"),
        (timeout, "timed out"),
        (malformed, "malformed answers"),
        (abandoned, "abandoned"),
        (failed, "failed connects"),
        (given_up, "connections given up"),
        (reconnects, "reconnects"),
    ]
    .iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{} {what}", grouped(*count)))
    .collect();
    writeln!(out, "  errors     {}", if errors.is_empty() { "none".to_owned() } else { errors.join(", ") })?;
    if planned > 0 {
        writeln!(out, "  churn      {} connections opened in place of used ones", grouped(planned))?;
    }
    let latency = &figures.latency;
    writeln!(
        out,
        "  latency    p50 {}   p90 {}   p99 {}   p99.9 {}   p99.99 {}   max {}   mean {}",
        human_us(latency.p50_us),
        human_us(latency.p90_us),
        human_us(latency.p99_us),
        human_us(latency.p99_9_us),
        human_us(latency.p99_99_us),
        human_us(latency.max_us),
        human_us(latency.mean_us),
    )?;
    let per_second = |octets: u64| octets as f64 / 1e6 / figures.window_s.max(1e-9);
    writeln!(
        out,
        "  traffic    {:.1} MB/s sent, {:.1} MB/s received",
        per_second(figures.octets_sent),
        per_second(figures.octets_received)
    )?;
    for process in &figures.processes {
        if let (Some(us), Some(percent), Some(start), Some(end)) =
            (process.cpu_us_per_request, process.cpu_percent, process.rss_start_mib, process.rss_end_mib)
        {
            writeln!(
                out,
                "  cpu        {us:.2} µs a request, {percent:.0} % of a core: {} (pid {}; {start} MiB resident at \
                 the start, {end} MiB at the end)",
                process.name, process.pid
            )?;
        }
    }
    if let Some(us) = figures.generator.cpu_us_per_request {
        writeln!(
            out,
            "  cpu        {us:.2} µs a request, busiest thread {:.0} %: this generator",
            figures.generator.busy_percent
        )?;
    }
    Ok(())
}

fn write_idle(out: &mut String, idle: &IdleFigures) -> fmt::Result {
    writeln!(
        out,
        "  idle       {} connections, {} answered once, {} open at the end",
        grouped(idle.connections as u64),
        grouped(idle.requests_answered),
        grouped(idle.open_at_end as u64),
    )?;
    let figure = |value: Option<f64>| value.map_or("?".to_owned(), |value| value.to_string());
    for process in &idle.processes {
        writeln!(
            out,
            "  memory     {} MiB before, {} MiB opened, {} MiB at the end, {} octets a connection: {} (pid {})",
            figure(process.rss_before_mib),
            figure(process.rss_opened_mib),
            figure(process.rss_end_mib),
            figure(process.octets_per_connection),
            process.name,
            process.pid,
        )?;
    }
    Ok(())
}

fn write_comparison(out: &mut String, comparison: &Comparison, pinned: bool) -> fmt::Result {
    let digits =
        |value: Option<f64>, digits: usize| value.map_or("?".to_owned(), |value| format!("{value:.digits$}"));
    let pinned = if pinned { ", pinned" } else { "" };
    writeln!(out, "\n  against {} (empty_gif, one process, no log{pinned})", comparison.server)?;
    writeln!(
        out,
        "  {:>6} {:>14} {:>14} {:>12} {:>12} {:>8}",
        "round", "url req/s", "nginx req/s", "url µs/req", "nginx µs/req", "ratio"
    )?;
    for round in &comparison.rounds {
        writeln!(
            out,
            "  {:>6} {:>14.0} {:>14.0} {:>12} {:>12} {:>8}",
            round.round,
            round.url.requests_per_second,
            round.reference.requests_per_second,
            digits(round.url.cpu_us_per_request, 2),
            digits(round.reference.cpu_us_per_request, 2),
            digits(round.cpu_ratio, 3),
        )?;
    }
    let Some(median) = &comparison.median else { return writeln!(out, "  no round was completed") };
    writeln!(
        out,
        "  {:>6} {:>14.0} {:>14.0} {:>12} {:>12} {:>8}",
        "median",
        median.url_requests_per_second,
        median.reference_requests_per_second,
        digits(median.url_cpu_us_per_request, 2),
        digits(median.reference_cpu_us_per_request, 2),
        digits(median.cpu_ratio, 3),
    )?;
    writeln!(
        out,
        "  CPU per request, url ÷ nginx: {} ({} … {})\n",
        digits(median.cpu_ratio, 3),
        digits(median.cpu_ratio_min, 3),
        digits(median.cpu_ratio_max, 3),
    )
}
