//! The page, and text as HTML.

use std::fmt::{self, Write};

use crate::plot::{Page, Section, Table, chart};

const STYLE: &str = include_str!("style.css");

pub(super) fn page(page: &Page) -> String {
    let mut html = String::new();
    // Writing to a String cannot fail.
    write_page(&mut html, page).unwrap_or_default();
    html
}

fn write_page(out: &mut String, page: &Page) -> fmt::Result {
    // The policy forbids what the page does not need: with it no browser loads anything for it, whatever it holds.
    write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta name=\"color-scheme\" content=\"light dark\"/>\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src \
         data:\"/>\n<link rel=\"icon\" href=\"data:,\"/>\n<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n<main>\n<h1>{title}</h1>\n",
        title = Text(&page.title),
    )?;
    paragraphs(out, &page.lead)?;
    if !page.facts.is_empty() {
        writeln!(out, "<dl class=\"facts\">")?;
        for (name, value) in &page.facts {
            writeln!(out, "<div><dt>{}</dt><dd>{}</dd></div>", Text(name), Prose(value))?;
        }
        writeln!(out, "</dl>")?;
    }
    for (number, section) in page.sections.iter().enumerate() {
        write_section(out, section, number + 1)?;
    }
    writeln!(out, "</main>\n</body>\n</html>")
}

fn write_section(out: &mut String, section: &Section, number: usize) -> fmt::Result {
    writeln!(out, "<section id=\"s{number}\">\n<h2>{}</h2>", Text(&section.title))?;
    paragraphs(out, &section.text)?;
    if let Some(chart) = &section.chart {
        chart::write_figure(out, chart, &section.title, number)?;
    }
    if let Some(table) = &section.table {
        write_table(out, table)?;
    }
    writeln!(out, "</section>")
}

fn paragraphs(out: &mut String, texts: &[String]) -> fmt::Result {
    texts.iter().try_for_each(|text| writeln!(out, "<p>{}</p>", Prose(text)))
}

pub(super) fn write_table(out: &mut String, table: &Table) -> fmt::Result {
    writeln!(out, "<div class=\"wide\" tabindex=\"0\">\n<table>\n<thead><tr>")?;
    let class = |column: usize| if is_text(table, column) { " class=\"text\"" } else { "" };
    for (column, name) in table.head.iter().enumerate() {
        writeln!(out, "<th scope=\"col\"{}>{}</th>", class(column), Text(name))?;
    }
    writeln!(out, "</tr></thead>\n<tbody>")?;
    for row in &table.rows {
        write!(out, "<tr>")?;
        for (column, cell) in row.iter().enumerate() {
            match column {
                0 => write!(out, "<th scope=\"row\">{}</th>", Text(cell))?,
                _ => write!(out, "<td{}>{}</td>", class(column), Text(cell))?,
            }
        }
        writeln!(out, "</tr>")?;
    }
    writeln!(out, "</tbody>\n</table>\n</div>")
}

/// Whether a column behind the first holds words. Figures are set to the right, words to the left.
fn is_text(table: &Table, column: usize) -> bool {
    let begins_a_word = |cell: &String| cell.starts_with(char::is_alphabetic);
    column > 0 && table.rows.iter().filter_map(|row| row.get(column)).any(begins_a_word)
}

/// Text with what HTML and XML give a meaning to escaped, and without the characters that neither can hold.
pub(super) struct Text<'a>(pub(super) &'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '\n' | '\t' => f.write_char(character)?,
                '\u{fffe}' | '\u{ffff}' => f.write_char('\u{fffd}')?,
                control if control.is_control() => f.write_char('\u{fffd}')?,
                plain => f.write_char(plain)?,
            }
        }
        Ok(())
    }
}

/// Text in which what is between backquotes is code.
struct Prose<'a>(&'a str);

impl fmt::Display for Prose<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<&str> = self.0.split('`').collect();
        // A last backquote without a partner is a character like any other.
        let unpaired = parts.len().is_multiple_of(2);
        for (place, part) in parts.iter().enumerate() {
            match place {
                last if unpaired && last == parts.len() - 1 => write!(f, "`{}", Text(part))?,
                code if code % 2 == 1 => write!(f, "<code>{}</code>", Text(part))?,
                _ => write!(f, "{}", Text(part))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_and_backquotes_make_code() {
        assert_eq!(
            Text("<a href=\"x\">&'\u{0}\u{7f}é").to_string(),
            "&lt;a href=&quot;x&quot;&gt;&amp;&#39;\u{fffd}\u{fffd}é"
        );
        for (text, html) in [
            ("run `a < b` now", "run <code>a &lt; b</code> now"),
            ("`a``b`", "<code>a</code><code>b</code>"),
            ("a ` b", "a ` b"),
            ("`a` and `", "<code>a</code> and `"),
            ("", ""),
        ] {
            assert_eq!(Prose(text).to_string(), html);
        }
    }
}
