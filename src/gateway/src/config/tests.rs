use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("x.toml"))
}

#[test]
fn empty_file_is_the_default_and_the_printed_one_reads_back() {
    let config = parse("").unwrap();
    assert_eq!(config, Config::default());
    config.validate().unwrap();
    assert_eq!(parse(&config.to_toml()).unwrap(), config);
}

#[test]
fn unknown_key_is_named_with_its_line_and_the_allowed_ones() {
    let message = parse("[streams]\nmax_streams = 3\nmax_stream = 4\n").unwrap_err().to_string();
    assert!(message.contains("line 3"), "{message}");
    assert!(message.contains("unknown field `max_stream`"), "{message}");
    assert!(message.contains("`max_streams`"), "{message}");
    assert!(message.contains("`accept_seconds`"), "{message}");
    assert!(message.contains("x.toml"), "{message}");
    let message = parse("[stream]\n").unwrap_err().to_string();
    assert!(message.contains("`streams`"), "{message}");
}

#[test]
fn variables_win_over_the_file() {
    let mut config = parse("[http]\nlisten = 'off'\n[streams]\nmax_streams = 3\n").unwrap();
    config
        .apply_variables(|name| match name {
            "RENDERGATE_MAX_STREAMS" => Some("7".into()),
            "RENDERGATE_LOG_FORMAT" => Some("json".into()),
            "RENDERGATE_ADMISSION" => Some("off".into()),
            "RENDERGATE_CACHE_MB" => Some("0".into()),
            "RENDERGATE_HTTP" => Some(String::new()),
            "RENDERGATE_SANDBOX" => Some("required".into()),
            "RENDERGATE_SANDBOX_READ" => Some("/a:/b".into()),
            _ => None,
        })
        .unwrap();
    assert_eq!(config.worker.sandbox, Sandboxing::Required);
    assert_eq!(config.worker.sandbox_read, [Path::new("/a"), Path::new("/b")]);
    assert_eq!(config.streams.max_streams, 7);
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.http.listen, "off");
    assert!(!config.admission.enabled);
    assert_eq!(config.cache.megabytes, 0);
}

#[test]
fn wrong_values_say_what_is_allowed() {
    let check = |text: &str, expect: &str| {
        let message = parse(text).unwrap().validate().unwrap_err().to_string();
        assert!(message.contains(expect), "{message}");
    };
    check("[shutdown]\ndrain_seconds = -1.0", "shutdown.drain_seconds is -1, allowed is 0 to");
    check("[worker]\nready_seconds = nan", "worker.ready_seconds");
    check("[worker]\nwarm_nice = 20", "0 to 19");
    check("[http]\nlisten = 'localhost'", "ADDRESS:PORT");
    check("[admission]\ntarget_utilisation = 1.1", "is 1.1, allowed is above 0 up to 1");
    check(
        "[admission]\nffmpeg_niceness = 20",
        "admission.ffmpeg_niceness is 20, allowed is 0 to 19",
    );
    check("[admission]\ntarget_utilisation = 0", "admission.target_utilisation is 0");
    check("[cache]\nfree_share = 1.0", "cache.free_share is 1, allowed is 0 to below 1");
    check("[worker]\nsandbox_read = ['fonts']", "worker.sandbox_read is fonts, allowed is abs");
    check("[worker]\nsandbox_write = ['/a:/b']", "without a colon");
    let wrong = Config::default()
        .apply_variables(|name| (name == "RENDERGATE_WARM_WORKERS").then(|| "many".into()));
    assert!(wrong.unwrap_err().to_string().contains("RENDERGATE_WARM_WORKERS is many"));
}

#[test]
fn whole_numbers_are_seconds_too() {
    let config = parse("[shutdown]\ndrain_seconds = 5\n").unwrap();
    assert_eq!(duration(config.shutdown.drain_seconds), Duration::from_secs(5));
}
