use super::*;

const FILE: &str = "berth.toml";

fn parse(text: &str) -> anyhow::Result<Config> {
    Config::parse(text, Path::new(FILE))
}
fn error(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}
fn user(name: &str) -> UserName {
    UserName::normalise(name).unwrap()
}

/// The example with every setting switched on: `#key = value` is a setting, `# text` is prose.
fn example_with_all_settings() -> String {
    let is_setting = |line: &&str| line.strip_prefix('#').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
    EXAMPLE.lines().map(|line| if is_setting(&line) { &line[1..] } else { line }).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_is_the_defaults() {
    // Name and address come from the host where they aren't set, and there may be none.
    let as_shipped = parse(&EXAMPLE.replace("#name = ", "name = ").replace("#advertise = ", "advertise = ")).unwrap();
    let mut defaults = Config::new(Path::new("/srv/berth"));
    defaults.node.name = "mail1".parse().unwrap();
    defaults.node.advertise = vec!["mail1.example.org:8143".to_owned()];
    assert_eq!(as_shipped, defaults);
    // What is switched off says the default too, apart from settings whose default is "not set".
    let mut all = parse(&example_with_all_settings()).unwrap();
    all.node = defaults.node.clone();
    all.tls = TlsSection { certificate: None, key: None, client_ca: None, ..all.tls };
    all.auth.passwd_file = None;
    all.auth.anonymous_user = None;
    all.mail.control = None;
    all.mail.shared_account = None;
    all.lmtp.socket_user = None;
    all.lmtp.socket_group = None;
    all.mail.inbox = None;
    all.cache.dir = None;
    assert_eq!(all, defaults);
}

#[test]
fn the_example_has_every_setting() {
    let example: toml::Table = example_with_all_settings().parse().unwrap();
    // serde lists the settings of a table when it refuses one: that list can't be out of date.
    for section in
        ["node", "listen", "mail", "auth", "auth.names", "tls", "limits", "imap", "lmtp", "pop3", "quota", "expiry", "cache", "log"]
    {
        let error = toml::from_str::<Config>(&format!("[{section}]\nno-such-setting = 1\n")).unwrap_err();
        let known: Vec<&str> = error.message().split('`').skip(1).step_by(2).skip(1).collect();
        assert!(known.len() > 1, "{section}: {error}");
        let mut table = &example;
        for part in section.split('.') {
            table = table[part].as_table().unwrap();
        }
        // Tables that most nodes don't have: the next test has them.
        for key in known.into_iter().filter(|key| !["oauth", "acme"].contains(key) || section == "listen") {
            assert!(table.contains_key(key), "config.example.toml lacks {key} in [{section}]");
        }
    }
}

#[test]
fn the_example_has_every_setting_of_sources_and_tokens() {
    let examples: String = EXAMPLE.lines().filter_map(|line| line.strip_prefix("#:")).map(|line| format!("{}\n", line.trim())).collect();
    let head = "[node]\nname = \"a\"\nroot = \"/srv/berth\"\nadvertise = [\"a:8143\"]\n";
    let config = parse(&format!("{head}{examples}")).unwrap();
    assert_eq!(config.auth.source.len(), 5);
    let table: toml::Table = examples.parse().unwrap();
    let known = |section: &str| {
        let error = toml::from_str::<Config>(&format!("{head}{section}\nno-such-setting = 1\n")).unwrap_err();
        let known: Vec<String> = error.message().split('`').skip(1).step_by(2).skip(1).map(str::to_owned).collect();
        assert!(!known.is_empty(), "{section}: {error}");
        known
    };
    for source in table["auth"]["source"].as_array().unwrap() {
        let kind = source["type"].as_str().unwrap();
        for key in known(&format!("[[auth.source]]\ntype = \"{kind}\"")) {
            assert!(source.get(&key).is_some(), "config.example.toml lacks {key} of {kind}");
        }
    }
    for key in known("[tls.acme]") {
        assert!(table["tls"]["acme"].get(&key).is_some(), "config.example.toml lacks {key} in [tls.acme]");
    }
    for key in known("[auth.oauth]") {
        assert!(table["auth"]["oauth"].get(&key).is_some(), "config.example.toml lacks {key} in [auth.oauth]");
    }
}

#[test]
fn a_misspelt_setting_is_named_with_its_line_and_the_likely_one() {
    assert_eq!(
        error("[node]\nname = \"a\"\nrooot = \"/srv/berth\"\n"),
        "berth.toml, line 3, column 1: unknown setting `rooot`, did you mean `root`?\n  |\n3 | rooot = \"/srv/berth\"\n  | ^^^^^"
    );
    assert_eq!(
        error("[node]\nroot = \"/srv/berth\"\n[limit]\n"),
        "berth.toml, line 3, column 2: unknown setting `limit`, did you mean `limits`?\n  |\n3 | [limit]\n  |  ^^^^^"
    );
    assert_eq!(
        error("[node]\nroot = \"/srv/berth\"\n[auth]\nnames = { detail_delimeter = \"+\" }\n"),
        "berth.toml, line 4, column 11: unknown setting `detail_delimeter`, did you mean `detail_delimiter`?\n  |\n4 | names = { detail_delimeter = \"+\" }\n  |           ^^^^^^^^^^^^^^^^"
    );
    assert_eq!(
        error("[node]\nroot = \"/srv/berth\"\n[tls]\nqqq = 1\n").lines().next().unwrap(),
        "berth.toml, line 4, column 1: unknown setting `qqq`, known here are `certificate`, `key`, `client_ca`, `min_version`, `warn_before`, `sni`, `acme`"
    );
}

#[test]
fn a_wrong_value_is_shown_in_its_line() {
    assert_eq!(
        error("[node]\nroot = \"/srv/berth\"\n[limits]\nidle_timeout = \"soon\"\n").lines().next().unwrap(),
        "berth.toml, line 4, column 16: \"soon\" is no time: write a number with its unit, in quotes, as in \"30s\" or \"15m\""
    );
    assert!(error("[node]\nname = \"a\"\n").contains("the setting `root` is missing"));
    assert!(error("[node\n").starts_with("berth.toml, line 1, column 6: "), "{}", error("[node\n"));
    assert!(error("").contains("the setting `node` is missing"));
}

#[test]
fn several_wrong_values_are_told_at_once() {
    let said = error(concat!(
        "[node]\nname = \"a\"\nroot = \"srv\"\nadvertise = [\"a:8143\"]\n",
        "[listen]\nimap = \"127.0.0.1:21020\"\nimaps = [\"localhost:21020\"]\nproxy_frm = []\n",
        "[mail]\nlinger = 30\nsharing = \"yes\"\n",
        "[limits]\nconnections = \"many\"\n",
        "[lmtp]\nover_quota = \"drop\"\n",
    ));
    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("berth.toml")).collect();
    let mut expected = [
        "berth.toml, line 6, column 8: \"127.0.0.1:21020\" is no list: write [\"127.0.0.1:21020\"]",
        "berth.toml, line 7, column 10: \"localhost:21020\" is no address: write an IP address and a port, as in \"127.0.0.1:143\" or \"[::]:143\" (names are not looked up)",
        "berth.toml, line 8, column 1: unknown setting `proxy_frm`, did you mean `proxy_from`?",
        "berth.toml, line 10, column 10: 30 is no time: write a number with its unit, in quotes, as in \"30s\" or \"15m\"",
        "berth.toml, line 11, column 11: \"yes\" is neither true nor false: write one of them, without quotes",
        "berth.toml, line 13, column 15: \"many\" is no whole number: write one without quotes, 0 or more",
        "berth.toml, line 15, column 14: \"drop\" is not known here: write \"defer\" or \"refuse\"",
        "berth.toml, line 3, column 1: `node.root`: srv is relative: write the path from /",
    ];
    let mut lines = lines;
    lines.sort_unstable();
    expected.sort_unstable();
    assert_eq!(lines, expected, "{said}");
    let sources =
        "[node]\nname = \"a\"\nroot = \"/srv\"\n[[auth.source]]\ntype = \"ldap\"\n  uri = \"ldap://a\"\nbase = \"dc=x\"\n[log]\nuri = 1\n";
    let misspelt = error(sources);
    assert!(misspelt.contains("line 6, column 3: unknown setting `uri`, did you mean `urls`?"), "{misspelt}");
    let doubled = error("[node]\nname = \"a\"\nroot = \"/srv\"\n[[expiry]]\nrules = []\n");
    assert!(
        doubled.contains("line 4") && doubled.contains("[[expiry]] is no list of tables: write the heading with single brackets"),
        "{doubled}"
    );
    // What was left out to read the rest is not asked for.
    assert_eq!(error("[node]\nname = \"a\"\nroot = 7\n").matches("berth.toml").count(), 1);
}

#[test]
fn two_listeners_never_have_one_address() {
    let said = |listen: &str| {
        let text = format!(
            "[node]\nname = \"a\"\nroot = \"/srv\"\nadvertise = [\"a:8143\"]\n[tls]\ncertificate = \"/c\"\nkey = \"/k\"\n[listen]\n{listen}\n"
        );
        parse(&text).err().map(|error| error.to_string().lines().next().unwrap_or_default().to_owned())
    };
    for listen in [
        "imap = [\"127.0.0.1:1143\"]\nimaps = [\"127.0.0.1:1143\"]",
        "imaps = [\"127.0.0.1:1143\"]\nhealth = [\"[::]:1143\"]",
        "lmtp = [\"127.0.0.1:1143\"]\nrelay = \"0.0.0.0:1143\"",
    ] {
        assert!(said(listen).unwrap().contains("1143 is taken by `listen."), "{listen}: {:?}", said(listen));
    }
    assert!(said("imap = [\"127.0.0.1:1143\", \"127.0.0.1:1143\"]").unwrap().contains("twice"));
    for fine in
        ["imap = [\"127.0.0.1:1143\", \"127.0.0.2:1143\", \"[::1]:1143\"]", "imap = [\"127.0.0.1:0\"]\nimaps = [\"127.0.0.1:0\"]", ""]
    {
        assert_eq!(said(fine), None, "{fine}");
    }
    let without_tls = "[node]\nname = \"a\"\nroot = \"/srv\"\nadvertise = [\"a:8143\"]\n[listen]\nimap = [\"[::]:993\"]\n";
    assert!(parse(without_tls).is_ok(), "imaps does not listen there");
}

#[test]
fn every_problem_is_reported_at_once_with_its_line() {
    let said = error(concat!(
        "[node]\nname = \"a\"\nroot = \"srv\"\nadvertise = [\"mail1\"]\n",
        "[mail]\nmaildir = \"{local}/Maildir\"\nindex = \"{usr}\"\n",
        "[auth]\ndefault_scheme = \"ROT13\"\n",
        "[tls]\ncertificate = \"/etc/berth/cert.pem\"\n",
        "[limits]\nconnections = 0\nidle_timeout = \"29m\"\n",
        "[lmtp]\nallow = [\"everybody\"]\n",
    ));
    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("berth.toml")).collect();
    let expected = [
        "berth.toml, line 3, column 1: `node.root`: srv is relative: write the path from /",
        "berth.toml, line 4, column 1: `node.advertise`: \"mail1\" is not host:port, as in \"mail1.example.org:8143\"",
        "berth.toml, line 6, column 1: `mail.maildir`: must contain {user}, or {domain} and {local}: two users must never share a folder (to leave a domain out of paths, name it in `auth.names.local_domains`)",
        "berth.toml, line 7, column 1: `mail.index`: {usr} is unknown: use {user}, or {domain} and {local}, or {home}",
        "berth.toml, line 9, column 1: `auth.default_scheme`: \"ROT13\" is not supported: known are ",
        "berth.toml, line 13, column 1: `limits.connections`: must be 1 at least",
        "berth.toml, line 14, column 1: `limits.idle_timeout`: must be 30m at least (RFC 9051 §5.4)",
        "berth.toml, line 11, column 1: `tls.certificate`: has no `tls.key` beside it: name the file with the private key",
        "berth.toml, line 16, column 1: `lmtp.allow`: \"everybody\" is not a network: write an address with a prefix length as in 10.0.0.0/8 or 2001:db8::/32, or one address",
    ];
    assert_eq!(lines.len(), expected.len(), "{said}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line}\n{expected}");
    }
}

#[test]
fn mailboxes_and_domains_that_cannot_be_are_refused() {
    let node = "[node]\nname = \"a\"\nroot = \"/srv/berth\"\nadvertise = [\"a:8143\"]\n";
    let said = error(&format!("{node}[mail]\nauto_create = {{ Sent = 'Sent', 'a//b' = '' }}\n"));
    assert!(said.contains("line 6, column 1: `mail.auto_create`: \"Sent\" of Sent is not a special use: write \"\" or one of "), "{said}");
    assert!(said.contains("`mail.auto_create`: \"a//b\" can't be a mailbox: "), "{said}");
    let said = error(&format!("{node}[auth.names]\nlocal_domains = [\"@localhost\"]\n"));
    assert!(said.contains("line 6, column 1: `auth.names.local_domains`: \"@localhost\" is not a domain"), "{said}");
    parse(&format!("{node}[mail]\nauto_create = {{ Sent = '\\sent', Lists = '' }}\n")).unwrap();
}

#[test]
fn a_tls_listener_needs_a_certificate_only_where_it_was_asked_for() {
    assert!(parse("[node]\nname = \"a\"\nroot = \"/srv/berth\"\nadvertise = [\"a:8143\"]\n").is_ok());
    let said = error("[node]\nname = \"a\"\nroot = \"/srv/berth\"\nadvertise = [\"a:8143\"]\n[listen]\nimaps = [\"[::]:993\"]\n");
    assert!(said.starts_with("berth.toml, line 6, column 1: `listen.imaps`: needs `tls.certificate`"), "{said}");
}

#[test]
fn the_advertised_address_is_the_relays_unless_that_is_a_wildcard() {
    let config = parse("[node]\nname = \"a\"\nroot = \"/srv/berth\"\n[listen]\nrelay = \"192.0.2.1:8143\"\n").unwrap();
    assert_eq!(config.node.advertise, ["192.0.2.1:8143"]);
    let mut wildcard = Config::new(Path::new("/srv/berth"));
    assert_eq!(wildcard.check().iter().map(|problem| problem.key).collect::<Vec<_>>(), ["node.advertise"]);
    wildcard.node.advertise.push("[2001:db8::1]:8143".to_owned());
    assert_eq!(wildcard.check(), []);
    // Port 0 is only known once the relay listens.
    let config = parse("[node]\nname = \"a\"\nroot = \"/srv/berth\"\n[listen]\nrelay = \"127.0.0.1:0\"\n").unwrap();
    assert!(config.node.advertise.is_empty());
}

#[test]
fn by_default_only_this_host_may_deliver() {
    let lmtp = LmtpSection::default();
    for (address, allowed) in [("127.0.0.1", true), ("::1", true), ("::ffff:127.0.0.1", true), ("192.0.2.1", false), ("::2", false)] {
        assert_eq!(lmtp.allows(address.parse().unwrap()), allowed, "{address}");
    }
}

#[test]
fn users_never_share_a_folder() {
    let config = Config::new(Path::new("/srv/berth"));
    let maildir = |name: &str| config.account_paths(&user(name), None).unwrap().maildir.display().to_string();
    assert_eq!(maildir("ada"), "/srv/berth/mail/_/ada/Maildir");
    assert_eq!(maildir("ada@example.org"), "/srv/berth/mail/example.org/ada/Maildir");
    assert_eq!(maildir("o'neill@example.org"), "/srv/berth/mail/example.org/o%27neill/Maildir");
    assert_eq!(maildir("{user}"), "/srv/berth/mail/_/%7Buser%7D/Maildir");
    assert_eq!(config.account_paths(&user("ada"), None).unwrap().index, Path::new("/srv/berth/mail/_/ada/index"));

    let mut elsewhere = config;
    elsewhere.mail.maildir = "/var/vmail/{user}".to_owned();
    assert_eq!(elsewhere.account_paths(&user("ada@example.org"), None).unwrap().maildir, Path::new("/var/vmail/ada@example.org"));
}

#[test]
fn a_layout_that_is_none_is_refused() {
    let refused = error("[node]\nroot = \"/srv/berth\"\n[mail]\nlayout = \"FS\"\n");
    assert!(refused.contains("`mail.layout`") && refused.contains("maildir++ (folders named .Archive.2026) or fs"), "{refused}");
}

#[test]
fn settings_survive_being_printed() {
    let config = parse(&example_with_all_settings()).unwrap();
    assert_eq!(parse(&toml::to_string(&config).unwrap()).unwrap(), config);
}

#[test]
fn a_sandbox_runs_no_programs() {
    let head = "[node]\nname = \"a\"\nroot = \"/srv/berth\"\nadvertise = [\"a:8143\"]\nsandbox = \"auto\"\n";
    assert!(parse(head).is_ok());
    let both = format!("{head}[quota]\nwarning_command = [\"/usr/local/bin/warn\"]\n");
    assert!(parse(&both).unwrap_err().to_string().contains("quota.warning_command"), "{both}");
}

#[test]
fn a_level_that_is_none_is_refused() {
    let head = "[node]\nname = \"a\"\nroot = \"/srv/berth\"\nadvertise = [\"a:8143\"]\n[log]\n";
    for level in ["chatty", "info,server::imap=loud", "verbose,server=info", "", "=info"] {
        let said = error(&format!("{head}level = \"{level}\"\n"));
        assert!(said.contains("line 6") && said.contains("is not a level") && said.contains("MODULE=LEVEL"), "{level:?}: {said}");
    }
    for level in ["info", "WARN", "off", "info,server::imap=debug", "error,affinity=trace"] {
        assert!(parse(&format!("{head}level = \"{level}\"\n")).is_ok(), "{level:?}");
    }
}

#[test]
fn a_source_without_a_place_is_refused_and_a_missing_database_is_named() {
    let head = "[node]\nname = \"a\"\nroot = \"/srv/berth\"\nadvertise = [\"a:8143\"]\n[[auth.source]]\n";
    let said = error(&format!("{head}type = \"sql\"\n"));
    assert!(said.contains("line 5") && said.contains("source 1") && said.contains("lacks `connection`"), "{said}");
    let said = error(&format!("{head}type = \"sql\"\nconnection = \"host=x\"\nquery = \"\"\n"));
    assert!(said.contains("empty `query`"), "{said}");
    let said = error(&format!("{head}type = \"ldap\"\n"));
    assert!(said.contains("lacks `urls`"), "{said}");
    let config = parse(&format!("{head}type = \"sql\"\ndriver = \"sqlite\"\nconnection = \"/nonexist.db\"\n")).unwrap();
    let missing = config.auth.missing_databases();
    assert!(missing.len() == 1 && missing[0].contains("/nonexist.db"), "{missing:?}");
    assert_eq!(parse(&format!("{head}type = \"static\"\n")).unwrap().auth.missing_databases(), Vec::<String>::new());
}

#[test]
fn a_cache_lies_on_a_local_disk_and_has_a_size_that_works() {
    let head = "[node]\nname = \"a\"\nroot = \"/srv/berth\"\nadvertise = [\"a:8143\"]\n[cache]\n";
    for (settings, line, expected) in [
        ("dir = \"cache\"", 6, "`cache.dir`: cache is relative"),
        ("dir = \"/srv/berth/cache\"", 6, "`cache.dir`: lies in the shared directory"),
        ("dir = \"/var/cache/berth\"\nsize = \"1MiB\"", 7, "`cache.size`: 1.0 MiB is not between 64.0 MiB and 128.0 GiB"),
        ("size = \"1TiB\"", 6, "`cache.size`: 1.0 TiB is not between"),
    ] {
        let said = error(&format!("{head}{settings}\n"));
        assert!(said.starts_with(&format!("berth.toml, line {line}, column 1: {expected}")), "{said}");
    }
    let config = parse(&format!("{head}dir = \"/var/cache/berth\"\nsize = \"10GiB\"\n")).unwrap();
    assert_eq!(config.cache.size, ByteSize::gib(10));
    assert_eq!(Config::new(Path::new("/srv/berth")).cache.dir, None, "off unless it is set");
}
