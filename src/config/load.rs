//! From a file and the environment to a checked [`Config`].
//!
//! The file's values go on top of the defaults, the environment's on top of both. Each value is first tried alone,
//! so that every wrong one is reported and not only the first.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use serde::Deserialize as _;
use toml::de::DeTable;
use toml::{Table, Value};

use super::broker::{Secret, redact};
use super::error::{ConfigError, Given, Problem};
use super::leaf::{self, Leaf};
use super::model::{Config, DestinationConfig, RouteConfig};
use super::validate;

/// Environment variables that start with this are overrides: `BEACON_EDGE__HTTP__LISTEN` is `http.listen`.
pub const ENV_PREFIX: &str = "BEACON_EDGE__";
/// Longer than any password; a wrong file name must not read a disk into memory.
const MAX_PASSWORD: u64 = 4096;

impl Config {
    /// Reads the file, if there is one, applies the overrides of `env` and checks the result.
    ///
    /// `env` is the whole environment; variables without [`ENV_PREFIX`] are ignored. Blocking: reads files.
    ///
    /// # Errors
    ///
    /// The file cannot be read or is not TOML, or some keys or values are wrong: then all of them are told.
    pub fn load(
        path: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let text = path.map(read).transpose()?.unwrap_or_default();
        let values = toml::from_str::<Table>(&text).map_err(|error| syntax(path, &text, &error))?;
        let spans = DeTable::parse(&text).map_err(|error| syntax(path, &text, &error))?;

        let mut base = base(&values);
        let (mut leaves, mut problems) = leaf::from_file(&text, spans.get_ref(), &values, &base);
        for leaf in from_env(env, &base) {
            match leaf {
                Ok(leaf) => leaves.push(leaf),
                Err(problem) => problems.push(problem),
            }
        }

        for leaf in &leaves {
            match reading(leaf) {
                Ok(value) => *slot(&mut base, &leaf.path) = value,
                Err(problem) => problems.push(problem),
            }
        }
        // Each value was tried alone, so only a bad default could fail here.
        let mut config = Self::deserialize(Value::Table(base)).map_err(|error| {
            let problem = Problem::value("configuration".to_owned(), None, error.message());
            ConfigError::Invalid { path: path.map(Path::to_owned), problems: vec![problem] }
        })?;

        let found = validate::problems(&config).into_iter().chain(read_passwords(&mut config));
        for (key, what) in found {
            // A value that could not be read is told once; the default in its place is nobody's fault.
            if problems.iter().all(|problem| problem.key != key) {
                problems.push(Problem::value(key.clone(), given(&leaves, &key), &what));
            }
        }
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError::Invalid { path: path.map(Path::to_owned), problems })
        }
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })
}

/// The parser's own text quotes the line, which may hold a password: only its message and the line's number are kept.
fn syntax(path: Option<&Path>, text: &str, error: &toml::de::Error) -> ConfigError {
    let offset = error.span().map_or(0, |span| span.start).min(text.len());
    ConfigError::Syntax {
        path: path.unwrap_or(Path::new("")).to_owned(),
        line: text.as_bytes()[..offset].iter().filter(|octet| **octet == b'\n').count() + 1,
        message: error.message().to_owned(),
    }
}

/// Every key that exists, with its default. Routes and destinations of a file take the place of the default ones.
fn base(file: &Table) -> Table {
    let mut config = Config::default();
    if let Some(Value::Table(routes)) = file.get("routes") {
        config.routes = routes.keys().map(|name| (name.clone(), RouteConfig::named(name))).collect();
    }
    if let Some(Value::Table(destinations)) = file.get("destinations") {
        let default = |name: &String| (name.clone(), DestinationConfig::default());
        config.destinations = destinations.keys().map(default).collect();
    }
    Table::try_from(config).expect("the model has string keys and values that TOML can hold")
}

fn from_env(env: impl Iterator<Item = (String, String)>, base: &Table) -> Vec<Result<Leaf, Problem>> {
    let mut overrides = env.filter(|(name, _)| name.starts_with(ENV_PREFIX)).collect::<Vec<_>>();
    overrides.sort();
    overrides
        .iter()
        .map(|(name, text)| {
            let segments = name[ENV_PREFIX.len()..].split("__").collect::<Vec<_>>();
            leaf::from_variable(name, &segments, text, base)
        })
        .collect()
}

/// The first reading of a value that has the right type.
fn reading(leaf: &Leaf) -> Result<Value, Problem> {
    let mut wrong = None;
    for value in &leaf.values {
        let alone =
            leaf.path.iter().rev().fold(value.clone(), |value, name| {
                Value::Table([(name.clone(), value)].into_iter().collect())
            });
        match Config::deserialize(alone) {
            Ok(_) => return Ok(value.clone()),
            Err(error) => wrong = wrong.or(Some(error)),
        }
    }
    let what = wrong.as_ref().map_or("has no value", |error| error.message());
    // serde's messages quote the value, which may be a URL in the wrong place.
    let what = if leaf.values.iter().any(holds_url) { redact(what) } else { what.to_owned() };
    Err(Problem::value(leaf.key(), Some(leaf.given.clone()), &what))
}

fn holds_url(value: &Value) -> bool {
    value.to_string().contains("://")
}

fn slot<'a>(table: &'a mut Table, path: &[String]) -> &'a mut Value {
    let (name, sections) = path.split_last().expect("a leaf has at least its key");
    let section = sections.iter().fold(table, |table, name| {
        table[name].as_table_mut().expect("leaves are found by walking the same tables")
    });
    &mut section[name]
}

/// The last place where `key` was given: the environment comes after the file.
fn given(leaves: &[Leaf], key: &str) -> Option<Given> {
    leaves.iter().rev().find(|leaf| leaf.key() == key).map(|leaf| leaf.given.clone())
}

fn read_passwords(config: &mut Config) -> Vec<(String, String)> {
    let mut problems = Vec::new();
    for (name, destination) in &mut config.destinations {
        if destination.password_file.is_empty() {
            continue;
        }
        match read_password(Path::new(&destination.password_file)) {
            Ok(password) => destination.password = Some(password),
            Err(error) => problems.push((
                format!("destinations.{name}.password_file"),
                format!("cannot read {}: {error}", destination.password_file),
            )),
        }
    }
    problems
}

/// The file's content without the end of its line.
fn read_password(path: &Path) -> io::Result<Secret> {
    let mut text = String::new();
    File::open(path)?.take(MAX_PASSWORD + 1).read_to_string(&mut text)?;
    let password = text.trim_end_matches(['\r', '\n']);
    if text.len() as u64 > MAX_PASSWORD {
        return Err(io::Error::other(format!("longer than {MAX_PASSWORD} octets")));
    }
    if password.is_empty() {
        return Err(io::Error::other("it is empty; write the password into it"));
    }
    Ok(Secret::new(password.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::Duration;

    use super::*;
    use crate::config::{Broker, LogFormat, Reply};

    const NO_ENV: [(&str, &str); 0] = [];

    /// A file that says where beacons go, and `more`.
    fn with_broker(more: &str) -> String {
        format!("{more}\n[destinations.main]\nbrokers = [\"stomp://u:hunter2@rabbit:61613/v\"]\n")
    }

    fn load<const N: usize>(file: &str, env: [(&str, &str); N]) -> Result<Config, ConfigError> {
        let mut on_disk = tempfile::NamedTempFile::new().unwrap();
        on_disk.write_all(file.as_bytes()).unwrap();
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Config::load(Some(on_disk.path()), env.into_iter())
    }

    fn problems<const N: usize>(file: &str, env: [(&str, &str); N]) -> Vec<String> {
        let error = load(file, env).expect_err("the configuration was accepted");
        let text = error.to_string();
        assert!(!text.contains("hunter2") && !format!("{error:?}").contains("hunter2"), "a password: {text}");
        match error {
            ConfigError::Invalid { problems, .. } => problems.iter().map(Problem::to_string).collect(),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn nothing_given_is_the_default() {
        assert_eq!(Config::load(None, std::iter::empty()).unwrap(), Config::default());
        assert_eq!(load("", [("PATH", "/bin"), ("BEACON_EDGE_X", "1")]).unwrap(), Config::default());
    }

    #[test]
    fn the_printed_defaults_load() {
        assert_eq!(load(&Config::default().to_toml(), NO_ENV).unwrap(), Config::default());
    }

    #[test]
    fn a_file_goes_on_top_of_the_defaults() {
        let config = load(
            &with_broker(
                "http.listen = \"[::1]:80\"\nhttp.max_body_bytes = \"8KiB\"\nlog = { format = \"json\" }\n\
                 [routes.click]\n[routes.view]\npath = \"/v\"\nreply = \"empty\"",
            ),
            NO_ENV,
        )
        .unwrap();
        assert_eq!(config.http.listen, "[::1]:80".parse().unwrap());
        assert_eq!(config.http.max_body_bytes, 8192);
        assert_eq!(config.http.max_headers, 100);
        assert_eq!(config.log.format, LogFormat::Json);
        let routes = config.routes.iter().map(|(name, route)| (&**name, &*route.path, route.reply));
        assert_eq!(
            routes.collect::<Vec<_>>(),
            [("click", "/click", Reply::Gif), ("view", "/v", Reply::Empty)]
        );
        let Broker::Url(url) = &config.destinations["main"].brokers[0] else { panic!("not a URL") };
        assert_eq!(url.reveal(), "stomp://u:hunter2@rabbit:61613/v");
        assert!(!format!("{config:?}").contains("hunter2"));
        assert!(config.to_toml().contains("brokers = [\"stomp://u:***@rabbit:61613/v\"]"));
    }

    #[test]
    fn the_documented_file_loads() {
        let documented = include_str!("../../docs/configuration.md");
        let (_, rest) = documented.split_once("```toml\n").unwrap();
        let config = load(rest.split_once("```").unwrap().0, NO_ENV).unwrap();
        assert_eq!(config.destinations["main"].brokers.len(), 2);
    }

    #[test]
    fn variables_go_on_top_of_the_file() {
        let config = load(
            &with_broker("http.workers = 2\n[routes.web-view]"),
            [
                ("BEACON_EDGE__HTTP__WORKERS", "3"),
                ("BEACON_EDGE__HTTP__LISTEN", "0.0.0.0:80"),
                ("BEACON_EDGE__HTTP__SHARE_PORT", "true"),
                ("BEACON_EDGE__HTTP__CORS_ORIGINS", "[\"https://a.example\"]"),
                ("BEACON_EDGE__LOG__LEVEL", "debug"),
                ("BEACON_EDGE__SHUTDOWN__DEADLINE", "3s"),
                ("BEACON_EDGE__ROUTES__WEB_VIEW__PATH", "/w"),
                ("BEACON_EDGE__DESTINATIONS__MAIN__BATCH__LINGER", "1ms"),
                ("BEACON_EDGE__DESTINATIONS__MAIN__BROKERS", "stomp://other"),
            ],
        )
        .unwrap();
        assert_eq!((config.http.workers, config.http.share_port), (3, true));
        assert_eq!(config.http.listen, "0.0.0.0:80".parse().unwrap());
        assert_eq!(config.http.cors_origins, ["https://a.example"]);
        assert_eq!(config.log.level, "debug");
        assert_eq!(config.shutdown.deadline, Duration::from_secs(3));
        assert_eq!(config.routes["web-view"].path, "/w");
        assert_eq!(config.destinations["main"].batch.linger, Duration::from_millis(1));
        assert_eq!(config.destinations["main"].brokers[0].to_string(), "stomp://other");
    }

    #[test]
    fn variables_alone_keep_the_default_routes() {
        let env = ("BEACON_EDGE__DESTINATIONS__MAIN__BROKERS".to_owned(), "[\"stomp://r\"]".to_owned());
        let config = Config::load(None, [env].into_iter()).unwrap();
        assert_eq!(config.routes, Config::default().routes);
        assert_eq!(config.destinations["main"].brokers[0].to_string(), "stomp://r");
    }

    #[test]
    fn unknown_names_are_told_with_the_nearest() {
        let file = with_broker(
            "colour = 1\n[http]\nworkers = 1\nlistne = \"x\"\n[htpp]\nlisten = \"x\"\n\
             [destinations.main.rign]\nmax_beacons = 3",
        );
        assert_eq!(
            problems(
                &file,
                [
                    ("BEACON_EDGE__HTTP__LISTNE", "x"),
                    ("BEACON_EDGE__DESTINATIONS__MAIM__BROKERS", "x"),
                    ("BEACON_EDGE__HTTP", "x"),
                    ("BEACON_EDGE__HTTP__LISTEN__PORT", "x"),
                ]
            ),
            [
                "unknown key `colour` at the top level, line 1; there is `admin`, `destinations`, `http`, `log`, \
                 `routes`, `shutdown`, `spool`",
                "unknown section [destinations.main.rign], line 7; did you mean `ring`?",
                "unknown section [htpp], line 5; did you mean `http`?",
                "unknown key `listne` in [http], line 4; did you mean `listen`?",
                "unknown name `MAIM` in [destinations], variable BEACON_EDGE__DESTINATIONS__MAIM__BROKERS; did you \
                 mean `MAIN`?",
                "`http` (variable BEACON_EDGE__HTTP): is a section; name a key of it, as in BEACON_EDGE__HTTP__KEY",
                "`http.listen` (variable BEACON_EDGE__HTTP__LISTEN__PORT): is a key, not a section",
                "unknown name `LISTNE` in [http], variable BEACON_EDGE__HTTP__LISTNE; did you mean `LISTEN`?",
            ]
        );
    }

    #[test]
    fn every_wrong_value_is_told_at_once() {
        let told = problems(
            "admin = 1\n[http]\nlisten = \"8080\"\nworkers = \"many\"\nhead_timeout = 10\nmax_headers = -1\n\
             [http.max_body_bytes]\n[routes.x]\nreply = \"gfi\"\n[destinations.main]\n\
             brokers = [\"amqp://u:hunter2@r\"]\n[destinations.b]\nbrokers = 5",
            [
                ("BEACON_EDGE__SHUTDOWN__DEADLINE", "5"),
                ("BEACON_EDGE__HTTP__SHARE_PORT", "perhaps"),
                ("BEACON_EDGE__HTTP__WORKERS", "stomp://u:hunter2@r"),
            ],
        );
        for says in [
            "`admin` (line 1): is a section: write [admin] and its keys below",
            "`http.listen` (line 3): \"8080\" is not an IP address and a port such as \"127.0.0.1:8080\"",
            "`http.workers` (line 4): invalid type: string \"many\", expected usize",
            "`http.head_timeout` (line 5): the number 10 has no unit",
            "`http.max_headers` (line 6): invalid value: integer `-1`, expected usize",
            "`http.max_body_bytes` (line 7): is a key, not a section",
            "`routes.x.reply` (line 9): unknown variant `gfi`, expected `gif` or `empty`",
            "`destinations.main.brokers` (line 11): a broker with a scheme other than stomp and stomp+ssl; write \"stomp://",
            "`destinations.b.brokers` (line 13): invalid type: integer `5`, expected a list of strings",
            "`http.share_port` (variable BEACON_EDGE__HTTP__SHARE_PORT): invalid type: string \"perhaps\"",
            "`http.workers` (variable BEACON_EDGE__HTTP__WORKERS): invalid type: string \"stomp://u:***@r\"",
            "`shutdown.deadline` (variable BEACON_EDGE__SHUTDOWN__DEADLINE): the number 5 has no unit",
        ] {
            assert!(told.iter().any(|problem| problem.starts_with(says)), "no `{says}` in {told:#?}");
        }
        assert_eq!(told.len(), 12, "{told:#?}");
    }

    #[test]
    fn a_destination_in_a_file_has_to_name_its_broker() {
        assert_eq!(
            problems("[destinations.main]\nconnections = 3", NO_ENV),
            [
                "`destinations.main.brokers`: is empty; write a URL such as \"stomp://user:password@host:61613/vhost\", \
              or \"embedded\" for the broker inside this process"
            ]
        );
    }

    #[test]
    fn a_syntax_error_names_the_line_and_quotes_nothing() {
        let error = load("[http]\nworkers = 1\nx = \"stomp://u:hunter2@r\n", NO_ENV).unwrap_err();
        assert!(matches!(error, ConfigError::Syntax { line: 3, .. }), "{error:?}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
        let error = load("[http]\nworkers = 99999999999999999999\n", NO_ENV).unwrap_err();
        assert!(matches!(error, ConfigError::Syntax { line: 2, .. }), "{error:?}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Config::load(Some(Path::new("/nowhere/edge.toml")), std::iter::empty()).unwrap_err();
        assert!(
            error.to_string().starts_with("cannot read the configuration /nowhere/edge.toml: "),
            "{error}"
        );
    }

    #[test]
    fn a_password_comes_from_a_file() {
        let mut secret = tempfile::NamedTempFile::new().unwrap();
        secret.write_all(b"hunter3\n").unwrap();
        let file = with_broker("") + &format!("password_file = {:?}\n", secret.path());
        let config = load(&file, NO_ENV).unwrap();
        assert_eq!(config.destinations["main"].password.as_ref().map(Secret::reveal), Some("hunter3"));
        assert!(!format!("{config:?}").contains("hunter3") && !config.to_toml().contains("hunter3"));

        let told = problems(&(with_broker("") + "password_file = \"/nowhere/pw\"\n"), NO_ENV);
        assert!(
            told[0].starts_with("`destinations.main.password_file` (line 4): cannot read /nowhere/pw: "),
            "{told:?}"
        );
        let empty = tempfile::NamedTempFile::new().unwrap();
        let told = problems(&(with_broker("") + &format!("password_file = {:?}\n", empty.path())), NO_ENV);
        assert!(told[0].ends_with("it is empty; write the password into it"), "{told:?}");
    }
}
