//! What a browser, and a phone's system, get from the agent's own origin: the page behind a link, and the files that
//! give links to an app.

use sessioncap::AgentUrl;
use sessioncap::web::{APPLE_PATH, ASSET_LINKS_PATH, LandingPage, apple_app_site_association, asset_links};

use crate::problem::{Outcome, Problem, While};

/// Which app opens links of this agent.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct SiteOptions {
    /// An app of Apple's that opens links of this agent, as TEAM.BUNDLE; may be repeated.
    #[arg(long = "apple-app", value_name = "ID")]
    apple_apps: Vec<String>,
    /// An Android app that opens links of this agent, and the SHA-256 of its certificate in hexadecimal.
    #[arg(long, value_name = "PACKAGE=SHA256")]
    android_app: Option<String>,
    /// The app's own scheme, which the page at /P opens on a tap.
    #[arg(long, value_name = "SCHEME")]
    app_scheme: Option<String>,
    /// A further name under which browsers reach this agent; may be repeated. They reach it by its addresses anyway.
    #[arg(long = "web-host", value_name = "NAME")]
    web_hosts: Vec<String>,
}

/// The page and the files, made once.
pub(super) struct Site {
    page: LandingPage,
    apple: Option<String>,
    android: Option<String>,
    hosts: Vec<String>,
}

/// An answer with all its headers, up to `Content-Length`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) headers: String,
    pub(super) text: String,
}

impl Site {
    pub(super) fn new(options: &SiteOptions, urls: &[AgentUrl]) -> Outcome<Self> {
        let page = match &options.app_scheme {
            Some(scheme) => LandingPage::with_scheme(scheme).during(format_args!("--app-scheme {scheme}"))?,
            None => LandingPage::new(),
        };
        let apps: Vec<&str> = options.apple_apps.iter().map(String::as_str).collect();
        let apple = match apps.as_slice() {
            [] => None,
            apps => Some(apple_app_site_association(apps).during("--apple-app")?),
        };
        let android = match &options.android_app {
            None => None,
            Some(app) => Some(android(app)?),
        };
        let names = options.web_hosts.iter().map(|name| name.to_ascii_lowercase());
        let hosts = urls.iter().map(AgentUrl::host).chain(names).collect();
        Ok(Self { page, apple, android, hosts })
    }

    /// Whether the agent has a page or file at this path.
    pub(super) fn has(&self, path: &str) -> bool {
        match path {
            LandingPage::PATH => true,
            APPLE_PATH => self.apple.is_some(),
            ASSET_LINKS_PATH => self.android.is_some(),
            _ => false,
        }
    }

    /// The content at a path. `None` if there is none, or if the request names another host: its page would make
    /// links of that one.
    pub(super) fn content(&self, path: &str, host: &str) -> Option<Content> {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        if !self.hosts.iter().any(|own| own.eq_ignore_ascii_case(name)) {
            return None;
        }
        let json = |text: &Option<String>| {
            let headers = "Content-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n";
            text.clone().map(|text| Content { headers: headers.to_owned(), text })
        };
        match path {
            LandingPage::PATH => {
                let headers = LandingPage::HEADERS.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
                Some(Content { headers: headers.collect(), text: self.page.as_str().to_owned() })
            }
            APPLE_PATH => json(&self.apple),
            ASSET_LINKS_PATH => json(&self.android),
            _ => None,
        }
    }
}

fn android(app: &str) -> Outcome<String> {
    let wrong = || Problem::said("--android-app: write PACKAGE=SHA256, the SHA-256 with or without colons");
    let (package, fingerprint) = app.split_once('=').ok_or_else(wrong)?;
    let digits: String = fingerprint.chars().filter(|digit| *digit != ':').collect();
    let byte = |at: usize| digits.get(2 * at..2 * at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
    let bytes: Option<Vec<u8>> = (0..32).map(byte).collect();
    let bytes = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()).filter(|_| digits.len() == 64);
    asset_links(package, &[bytes.ok_or_else(wrong)?]).during("--android-app")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(options: SiteOptions) -> Outcome<Site> {
        let urls = ["wss://agent.example", "ws://[::1]:9480"].map(|url| AgentUrl::parse(url).unwrap());
        Site::new(&options, &urls)
    }

    #[test]
    fn the_page_and_the_files_are_for_the_agents_own_hosts_alone() {
        let android_app = Some(format!("com.example.app={}", "AB:".repeat(31) + "cd"));
        let apple_apps = vec!["ABCDE12345.com.example.app".to_owned()];
        let web_hosts = vec!["Link.Example".to_owned()];
        let site = site(SiteOptions { apple_apps, android_app, app_scheme: None, web_hosts }).unwrap();
        for path in [LandingPage::PATH, APPLE_PATH, ASSET_LINKS_PATH] {
            for host in ["agent.example", "AGENT.example:8443", "[::1]", "[::1]:9480", "link.example"] {
                assert!(site.content(path, host).is_some(), "{path} {host}");
            }
            for host in
                ["", "evil.example", "agent.example.evil", "evil:agent.example", "::1", "agent.example:x"]
            {
                assert_eq!(site.content(path, host), None, "{path} {host}");
            }
        }
        assert!(site.content(ASSET_LINKS_PATH, "agent.example").unwrap().text.contains(":AB:CD\""));
        assert_eq!(site.content("/other", "agent.example"), None);
    }

    #[test]
    fn an_app_that_is_misspelt_stops_the_start() {
        let android =
            |app: &str| site(SiteOptions { android_app: Some(app.to_owned()), ..SiteOptions::default() });
        for app in
            ["com.example.app", "com.example.app=AB", "app=", &format!("com.example.app={}", "g".repeat(64))]
        {
            assert!(android(app).is_err(), "{app}");
        }
        assert!(android(&format!("com.example.app={}", "0a".repeat(33))).is_err());
        let scheme = SiteOptions { app_scheme: Some("https".to_owned()), ..SiteOptions::default() };
        assert!(site(scheme).is_err());
        let apple = SiteOptions { apple_apps: vec!["com.example".to_owned()], ..SiteOptions::default() };
        assert!(site(apple).is_err());
        assert!(!site(SiteOptions::default()).unwrap().has(APPLE_PATH));
    }
}
