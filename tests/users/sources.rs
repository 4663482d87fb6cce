//! OpenLDAP and PostgreSQL: logins, recipients, fields, and what happens while they are down.

use tests::{
    Result,
    clients::pop3::Pop3,
    cluster::Cluster,
    ensure, need,
    peers::databases::{Postgres, Slapd},
};

use super::{certificate, cluster, ensure_login, ensure_refused, logs, rcpt};

/// Ada may use both protocols, Bob only IMAP; `x*` would be found by a filter that is not escaped.
fn ensure_served(cluster: &Cluster) -> Result<()> {
    let doors = &cluster.nodes[0].doors;
    ensure_login(&doors.imap, "ada", "ada's secret")?;
    ensure_login(&cluster.nodes[1].doors.imap, "bob", "bob's secret")?;
    for (user, password) in [("ada", "bob's secret"), ("a*", "ada's secret"), ("nobody", "x"), ("ada)(uid=*", "x"), ("x' OR '1'='1", "x")] {
        ensure_refused(&doors.imap, user, password, "AUTHENTICATIONFAILED")?;
    }
    for (user, may) in [("ada", true), ("bob", false)] {
        let mut pop3 = Pop3::connect(&doors.pop3)?;
        pop3.ok(&format!("USER {user}"))?;
        let said = pop3.command(&format!("PASS {user}'s secret"))?;
        ensure!(said.is_ok() == may, "{user}: {said:?}");
    }
    ensure!(rcpt(&doors.lmtp, "ada")?.contains("250"), "{}", rcpt(&doors.lmtp, "ada")?);
    ensure!(rcpt(&doors.lmtp, "nobody")?.contains("550"), "{}", rcpt(&doors.lmtp, "nobody")?);
    // Users of the users file, which comes first, are served as before.
    ensure_login(&doors.imap, &cluster.users[0].name, &cluster.users[0].password)
}

fn ensure_temporary(cluster: &Cluster) -> Result<()> {
    let doors = &cluster.nodes[0].doors;
    ensure_refused(&doors.imap, "carol", "carol's secret", "UNAVAILABLE")?;
    let mut pop3 = Pop3::connect(&doors.pop3)?;
    pop3.ok("USER carol")?;
    ensure!(pop3.err("PASS x")?.starts_with("[SYS/TEMP]"));
    ensure!(rcpt(&doors.lmtp, "carol")?.contains("454"), "{}", rcpt(&doors.lmtp, "carol")?);
    ensure!(!logs(cluster)?.lines().any(|line| line.contains("auth failure") && line.contains("carol")), "an outage counts as a failure");
    ensure_login(&doors.imap, &cluster.users[0].name, &cluster.users[0].password)
}

const LDIF: &str = "\
dn: uid=ada,dc=example,dc=org
objectClass: inetOrgPerson
uid: ada
cn: Ada
sn: Lovelace
userPassword: ada's secret

dn: uid=bob,dc=example,dc=org
objectClass: inetOrgPerson
uid: bob
cn: Bob
sn: Builder
employeeType: imap
userPassword: bob's secret

dn: uid=carol,dc=example,dc=org
objectClass: inetOrgPerson
uid: carol
cn: Carol
sn: Singer
userPassword: carol's secret
";

#[test]
fn users_of_openldap_are_served_and_wait_while_it_is_down() -> Result<()> {
    need!("slapd");
    let mut cluster = cluster(2, "")?;
    let (certificate, key) = certificate(&cluster)?;
    let mut slapd = Slapd::start(LDIF, &certificate, &key)?;
    let secret = certificate.with_file_name("ldap-password");
    std::fs::write(&secret, "admin\n")?;
    cluster.configure(&format!(
        "[[auth.source]]\ntype = \"passwd-file\"\n\n[[auth.source]]\ntype = \"ldap\"\nurls = [\"ldap://{}\"]\nstart_tls = true\nca_file = {:?}\n\
         bind_dn = \"cn=admin,dc=example,dc=org\"\nbind_password_file = {secret:?}\nbase = \"dc=example,dc=org\"\n\
         filter = \"(&(objectClass=inetOrgPerson)(uid=%n))\"\nattributes = {{ protocols = \"employeeType\" }}\n",
        slapd.address, certificate
    ))?;
    ensure_served(&cluster)?;
    slapd.stop()?;
    ensure_temporary(&cluster)?;
    slapd.resume()?;
    ensure_login(&cluster.nodes[0].doors.imap, "carol", "carol's secret")
}

#[test]
fn users_of_postgresql_are_served_and_wait_while_it_is_down() -> Result<()> {
    need!("pg_ctlcluster");
    let mut postgres = Postgres::start(
        "CREATE TABLE users (name text PRIMARY KEY, password varchar(200), protocols text[], active boolean DEFAULT true, quota int);
         INSERT INTO users (name, password, protocols) VALUES
         ('ada', '{PLAIN}ada''s secret', NULL), ('bob', '{PLAIN}bob''s secret', '{imap}'), ('carol', '{PLAIN}carol''s secret', NULL)",
    )?;
    let cluster = cluster(
        2,
        &format!(
            "[[auth.source]]\ntype = \"passwd-file\"\n\n[[auth.source]]\ntype = \"sql\"\ndriver = \"postgresql\"\nconnection = \"{}\"\n\
             query = \"SELECT password, protocols, quota AS quota_rule FROM users WHERE name = %n AND active\"\n",
            postgres.connection()
        ),
    )?;
    ensure_served(&cluster)?;
    let doors = &cluster.nodes[0].doors;
    postgres.run("UPDATE users SET password = '{PLAIN}new' WHERE name = 'ada'")?;
    ensure_login(&doors.imap, "ada", "new")?;
    postgres.stop()?;
    ensure_temporary(&cluster)?;
    postgres.resume()?;
    ensure_login(&doors.imap, "carol", "carol's secret")
}
