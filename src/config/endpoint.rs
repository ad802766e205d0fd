//! The URL of a region, taken apart. Pure: resolves no name.

use std::net::{IpAddr, Ipv6Addr};

use super::Endpoint;

/// Longest name that DNS can carry.
const NAME_MAX: usize = 253;
/// Longest part of a name between two dots.
const LABEL_MAX: usize = 63;

impl Endpoint {
    /// Takes an `http://` URL apart. The error says what to do about it.
    pub fn parse(url: &str) -> Result<Self, String> {
        let rest = match url.split_once("://") {
            Some(("http", rest)) => rest,
            Some(("https", _)) => {
                return Err(
                    "Use http:// for now, inside a network you trust: https:// to regions is not built yet."
                        .into(),
                );
            }
            _ => return Err("Begin with http://, such as \"http://eu.internal:8080/webhook\".".into()),
        };
        if !url.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("Write blanks and letters outside ASCII as %XX, and names in their xn-- form.".into());
        }
        if rest.contains('#') {
            return Err("Leave out everything from the \"#\": a fragment is never sent.".into());
        }
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err("Leave out user and password; use signing_secret to prove who calls.".into());
        }
        let (host, port) = split_port(authority)?;
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        let host = check_host(host)?;
        let shown = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let authority = if port == 80 { shown } else { format!("{shown}:{port}") };
        Ok(Self { host, port, authority, target })
    }

    /// The address, if the host is a literal one.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

/// Host as written (a bracketed address keeps its brackets) and port.
fn split_port(authority: &str) -> Result<(&str, u16), String> {
    let (host, port) = match authority.rfind(':') {
        // The last colon may be inside an IPv6 address.
        Some(at) if !authority[at..].contains(']') => (&authority[..at], Some(&authority[at + 1..])),
        _ => (authority, None),
    };
    let Some(port) = port else { return Ok((host, 80)) };
    match port.parse() {
        Ok(number @ 1..) if port.bytes().all(|byte| byte.is_ascii_digit()) => Ok((host, number)),
        _ => Err("Give a port from 1 to 65535 after the \":\", or leave both out for port 80.".into()),
    }
}

/// The host without brackets, if it is an address or can be a name.
fn check_host(host: &str) -> Result<String, String> {
    if let Some(literal) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let address: Result<Ipv6Addr, _> = literal.parse();
        return match address {
            Ok(address) => Ok(address.to_string()),
            Err(_) => Err("Write an IPv6 address between the brackets, such as [2001:db8::1].".into()),
        };
    }
    if host.contains(':') {
        return Err("Put an IPv6 address in brackets, such as http://[2001:db8::1]:8080/.".into());
    }
    let label = |label: &str| {
        (1..=LABEL_MAX).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    if host.is_empty() || host.len() > NAME_MAX || !host.split('.').all(label) {
        return Err("Name the host after http://: a DNS name or an address.".into());
    }
    // A resolver would read 10.1 or 010.0.0.1 in its own way.
    let numeric = host.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    if numeric && host.parse::<IpAddr>().is_err() {
        return Err("Write an IPv4 address as four numbers from 0 to 255, such as 10.0.0.1.".into());
    }
    Ok(host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_is_taken_apart() {
        let check = |url: &str, host: &str, port: u16, authority: &str, target: &str| {
            let expected =
                Endpoint { host: host.into(), port, authority: authority.into(), target: target.into() };
            assert_eq!(Endpoint::parse(url), Ok(expected), "{url}");
        };
        check("http://eu.internal/webhook", "eu.internal", 80, "eu.internal", "/webhook");
        check("http://EU.internal:8080", "eu.internal", 8080, "eu.internal:8080", "/");
        check("http://eu:80/", "eu", 80, "eu", "/");
        check("http://eu?tenant=1&b=/", "eu", 80, "eu", "/?tenant=1&b=/");
        check("http://10.0.0.1:9000/a?b=c:d", "10.0.0.1", 9000, "10.0.0.1:9000", "/a?b=c:d");
        check("http://[2001:DB8::1]:8080/in", "2001:db8::1", 8080, "[2001:db8::1]:8080", "/in");
        check("http://[::1]", "::1", 80, "[::1]", "/");
    }

    #[test]
    fn doubtful_url_is_refused_with_what_to_do() {
        let check = |url: &str, part: &str| {
            let hint = Endpoint::parse(url).unwrap_err();
            assert!(hint.contains(part), "{url}: {hint}");
        };
        check("https://eu.internal/", "not built yet");
        check("ftp://eu.internal/", "Begin with http://");
        check("eu.internal:8080", "Begin with http://");
        check("http://user:hush@eu.internal/", "user and password");
        check("http://eu.internal/#part", "fragment");
        check("http://eu.internal/a b", "%XX");
        check("http://m\u{fc}nchen/", "xn--");
        check("http:///webhook", "Name the host");
        check("http://eu..internal/", "Name the host");
        check("http://eu.internal:0/", "port from 1");
        check("http://eu.internal:70000/", "port from 1");
        check("http://eu.internal:/", "port from 1");
        check("http://eu.internal:+80/", "port from 1");
        check("http://::1/", "brackets");
        check("http://[::1/", "brackets");
        check("http://[eu]/", "brackets");
        check("http://10.0.0.300/", "four numbers");
        check("http://10.1/", "four numbers");
    }
}
