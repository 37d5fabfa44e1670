//! The values that a file and the environment give, each with its key and where it stands. A tree with every key
//! that exists says which ones do not.

use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::error::{Given, Problem};
use super::nearest::nearest;

/// One value that was given.
#[derive(Debug, Clone)]
pub(super) struct Leaf {
    /// The sections and the key.
    pub(super) path: Vec<String>,
    /// Its readings, the preferred one first.
    pub(super) values: Vec<Value>,
    /// Where it was given.
    pub(super) given: Given,
}

impl Leaf {
    /// The key with its sections, such as `http.listen`.
    pub(super) fn key(&self) -> String {
        self.path.join(".")
    }
}

/// The leaves of a file. `spans` and `values` are the same document; `known` has every key that exists.
pub(super) fn from_file(
    text: &str,
    spans: &DeTable<'_>,
    values: &Table,
    known: &Table,
) -> (Vec<Leaf>, Vec<Problem>) {
    let mut walk = Walk { text, path: Vec::new(), leaves: Vec::new(), problems: Vec::new() };
    walk.section(spans, values, known);
    (walk.leaves, walk.problems)
}

/// The leaf of one environment variable, named `variable` and split into `segments`.
pub(super) fn from_variable(
    variable: &str,
    segments: &[&str],
    text: &str,
    known: &Table,
) -> Result<Leaf, Problem> {
    let given = Given::Variable(variable.to_owned());
    let mut path = Vec::new();
    let mut table = known;
    for (index, segment) in segments.iter().enumerate() {
        let is_last = index + 1 == segments.len();
        let found = table.iter().find(|(name, _)| upper(name) == segment.to_ascii_uppercase());
        let Some((name, value)) = found else {
            let what = format!("name `{segment}`{}", within(&path));
            return Err(Problem::unknown(join(&path, segment), given, &what, &advice(segment, table, upper)));
        };
        path.push(name.clone());
        match (value, is_last) {
            (Value::Table(section), false) => table = section,
            (Value::Table(_), true) => {
                let what = format!("is a section; name a key of it, as in {variable}__KEY");
                return Err(Problem::value(path.join("."), Some(given), &what));
            }
            (_, true) => {}
            (_, false) => {
                return Err(Problem::value(path.join("."), Some(given), "is a key, not a section"));
            }
        }
    }
    Ok(Leaf { path, values: readings(text), given })
}

struct Walk<'a> {
    text: &'a str,
    path: Vec<String>,
    leaves: Vec<Leaf>,
    problems: Vec<Problem>,
}

impl Walk<'_> {
    fn section(&mut self, spans: &DeTable<'_>, values: &Table, known: &Table) {
        for (name, span) in spans {
            let given = Given::Line(line(self.text, name.span().start));
            let name = name.get_ref().as_ref();
            let key = join(&self.path, name);
            match (known.get(name), span.get_ref(), values.get(name)) {
                (Some(Value::Table(known)), DeValue::Table(spans), Some(Value::Table(values))) => {
                    self.path.push(name.to_owned());
                    self.section(spans, values, known);
                    self.path.pop();
                }
                (Some(Value::Table(_)), ..) => {
                    let what = format!("is a section: write [{key}] and its keys below");
                    self.problems.push(Problem::value(key, Some(given), &what));
                }
                (Some(_), DeValue::Table(_), _) => {
                    self.problems.push(Problem::value(key, Some(given), "is a key, not a section"));
                }
                (Some(_), _, Some(value)) => {
                    let path = self.path.iter().cloned().chain([name.to_owned()]).collect();
                    self.leaves.push(Leaf { path, values: vec![value.clone()], given });
                }
                (None, DeValue::Table(_), _) => {
                    let what = format!("section [{key}]");
                    self.problems.push(Problem::unknown(
                        key,
                        given,
                        &what,
                        &advice(name, known, str::to_owned),
                    ));
                }
                (None, ..) | (_, _, None) => {
                    let what = format!("key `{name}`{}", within(&self.path));
                    self.problems.push(Problem::unknown(
                        key,
                        given,
                        &what,
                        &advice(name, known, str::to_owned),
                    ));
                }
            }
        }
    }
}

/// What a variable's text may mean: TOML if it is TOML, and always itself as a string.
fn readings(text: &str) -> Vec<Value> {
    let string = Value::String(text.to_owned());
    let toml = toml::from_str::<Table>(&format!("value = {text}"))
        .ok()
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("value"));
    toml.into_iter().chain([string]).collect()
}

fn advice(given: &str, known: &Table, spelled: fn(&str) -> String) -> String {
    match nearest(given, known.keys().map(String::as_str)) {
        Some(name) => format!("did you mean `{}`?", spelled(name)),
        None if known.is_empty() => "there is none here".to_owned(),
        None => {
            let names = known.keys().map(|name| format!("`{}`", spelled(name))).collect::<Vec<_>>();
            format!("there is {}", names.join(", "))
        }
    }
}

fn within(path: &[String]) -> String {
    if path.is_empty() { " at the top level".to_owned() } else { format!(" in [{}]", path.join(".")) }
}

fn join(path: &[String], name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{}.{name}", path.join(".")) }
}

/// How a name is written in a variable.
fn upper(name: &str) -> String {
    name.to_ascii_uppercase().replace('-', "_")
}

fn line(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|octet| **octet == b'\n').count() + 1
}
