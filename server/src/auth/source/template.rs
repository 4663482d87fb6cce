//! Texts with variables for the user: `%u` the whole name, `%n` before the `@`, `%d` after it, `%r` the client's address, `%s` the protocol, `%%` a
//! percent sign. A value never becomes part of the text that a server interprets: it is a bound parameter of a query, or escaped
//! (`a_value_is_never_read_as_part_of_a_query`, `what_a_filter_would_interpret_is_escaped`).

use super::Asker;

/// A text with variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(Variable),
}

/// What is known of whoever asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named in the module's text")]
pub enum Variable {
    User,
    Local,
    Domain,
    Address,
    Protocol,
}

impl Variable {
    /// Whether it tells one login of a user from another.
    pub fn is_of_login(self) -> bool {
        matches!(self, Variable::Address | Variable::Protocol)
    }
    /// Its value; empty where there is none.
    pub fn of(self, asker: &Asker) -> String {
        match self {
            Variable::User => asker.user.as_str().to_owned(),
            Variable::Local => asker.user.local_part().to_owned(),
            Variable::Domain => asker.user.domain().unwrap_or_default().to_owned(),
            Variable::Address => asker.client.map_or_else(String::new, |(address, _)| address.to_string()),
            Variable::Protocol => asker.client.map_or_else(|| "lmtp".to_owned(), |(_, protocol)| protocol.to_string()),
        }
    }
}

impl Template {
    /// Whether it differs between logins of one user.
    pub fn asks_who(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Variable(variable) if variable.is_of_login()))
    }
    /// Reads a text.
    pub fn parse(text: &str) -> Result<Template, String> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut characters = text.chars();
        while let Some(c) = characters.next() {
            if c != '%' {
                plain.push(c);
                continue;
            }
            let variable = match characters.next() {
                Some('%') => {
                    plain.push('%');
                    continue;
                }
                Some('u') => Variable::User,
                Some('n') => Variable::Local,
                Some('d') => Variable::Domain,
                Some('r') => Variable::Address,
                Some('s') => Variable::Protocol,
                other => {
                    let found: String = other.into_iter().collect();
                    return Err(format!("%{found} is unknown: use %u, %n, %d, %r, %s, or %% for a percent sign"));
                }
            };
            parts.push(Part::Text(std::mem::take(&mut plain)));
            parts.push(Part::Variable(variable));
        }
        parts.push(Part::Text(plain));
        Ok(Template { parts })
    }

    /// The text for one user, each value as `escape` writes it.
    pub fn fill(&self, asker: &Asker, escape: impl Fn(String) -> String) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Variable(variable) => escape(variable.of(asker)),
        };
        self.parts.iter().map(part).collect()
    }

    /// A query with parameters in place of its variables, written as `number` does, and the variables in their order.
    pub fn query(&self, number: impl Fn(usize) -> String) -> Result<(String, Vec<Variable>), String> {
        let mut query = String::new();
        let mut bound = Vec::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => query.push_str(text),
                Part::Variable(_) if query.matches('\'').count() % 2 == 1 => {
                    return Err("a variable stands in quotes: write `name = %u` without them, since it is bound as a parameter".to_owned());
                }
                Part::Variable(variable) => {
                    bound.push(*variable);
                    query.push_str(&number(bound.len()));
                }
            }
        }
        Ok((query.trim().trim_end_matches(';').trim_end().to_owned(), bound))
    }
}

#[cfg(test)]
mod tests {
    use affinity::UserName;

    use super::*;

    fn asker(user: &str) -> Asker {
        Asker::lookup(&UserName::normalise(user).unwrap())
    }

    #[test]
    fn a_value_is_never_read_as_part_of_a_query() {
        let query = Template::parse("SELECT * FROM u WHERE n = %u AND d = %d AND x LIKE 'a%%' ;").unwrap();
        let (text, bound) = query.query(|number| format!("${number}")).unwrap();
        assert_eq!(text, "SELECT * FROM u WHERE n = $1 AND d = $2 AND x LIKE 'a%'");
        assert_eq!(bound, [Variable::User, Variable::Domain]);
        assert!(Template::parse("SELECT * FROM u WHERE n = '%u'").unwrap().query(|_| String::new()).is_err());
        assert!(Template::parse("SELECT %x").unwrap_err().contains("%x is unknown"));
        assert!(Template::parse("SELECT %").is_err());
    }

    #[test]
    fn what_a_filter_would_interpret_is_escaped() {
        let filter = Template::parse("(&(uid=%n)(d=%d))").unwrap();
        let filled = filter.fill(&asker("a*)(uid=*@example.org"), |value| ldap3::ldap_escape(value).into_owned());
        assert_eq!(filled, "(&(uid=a\\2a\\29\\28uid=\\2a)(d=example.org))");
    }
}
