//! What the configuration of a destination means to stompwire.

use stompwire::{
    client::{BrokerUrl, ConnectOptions, TlsOptions, Window},
    proto::HeartBeat,
    publisher::{Backoff, PublisherOptions},
};

use crate::{
    config::{Broker, DestinationConfig},
    delivery::DeliveryError,
};

/// The options of the publisher of the destination `name`. `embedded` is the URL of the broker inside this process.
///
/// # Errors
/// [`DeliveryError::Url`]
pub(crate) fn publisher_options(
    name: &str,
    config: &DestinationConfig,
    embedded: Option<&str>,
) -> Result<PublisherOptions, DeliveryError> {
    let mut options = PublisherOptions::new(broker_urls(name, config, embedded)?, &config.destination);
    options.headers.push("content-type", "application/x-ndjson");
    options.connections = config.connections;
    options.receipt_timeout = config.receipt_timeout;
    options.backoff = Backoff { min: config.backoff_min, max: config.backoff_max };
    options.max_attempts = (config.max_attempts > 0).then_some(config.max_attempts);
    if !config.rebalance {
        options.rebalance = None;
    }
    options.connect = connect_options(config);
    Ok(options)
}

/// The brokers of the destination `name`, with their passwords.
///
/// # Errors
/// [`DeliveryError::Url`]
pub(crate) fn broker_urls(
    name: &str,
    config: &DestinationConfig,
    embedded: Option<&str>,
) -> Result<Vec<BrokerUrl>, DeliveryError> {
    let url = |broker: &Broker| -> Result<BrokerUrl, DeliveryError> {
        let text = match broker {
            Broker::Embedded => embedded.unwrap_or_default(),
            Broker::Url(url) => url.reveal(),
        };
        let url: BrokerUrl =
            text.parse().map_err(|cause| DeliveryError::Url { destination: name.to_owned(), cause })?;
        Ok(match (&config.password, broker) {
            (Some(password), Broker::Url(_)) => url.with_passcode(password.reveal()),
            _ => url,
        })
    };
    config.brokers.iter().map(url).collect()
}

/// How a connection to any of them is made.
pub(crate) fn connect_options(config: &DestinationConfig) -> ConnectOptions {
    let mut options = ConnectOptions::default();
    options.window = Window { frames: config.window_frames, bytes: config.window_bytes };
    options.tcp_timeout = config.connect_timeout;
    options.session.connect_timeout = config.connect_timeout;
    options.session.heart_beat = HeartBeat::every(config.heart_beat);
    options.tls = tls_options(config);
    options
}

fn tls_options(config: &DestinationConfig) -> TlsOptions {
    let mut tls = TlsOptions::default();
    if !config.ca_file.is_empty() {
        tls = tls.with_ca_file(&config.ca_file);
    }
    if !config.client_cert_file.is_empty() {
        tls = tls.with_client_identity_file(&config.client_cert_file, &config.client_key_file);
    }
    tls
}
