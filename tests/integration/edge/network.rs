//! A network of two links to a namespace of its own, one of which can go down: what only root may build.

use std::time::Duration;

use linkmic::probe::process::output;

const PATIENCE: Duration = Duration::from_secs(10);

/// Two links from here to a namespace where a server may live. Dropping it removes them.
pub struct Network {
    name: String,
    /// The second byte of its addresses, and part of all names.
    number: u32,
}

impl Network {
    /// # Errors
    /// Why it cannot be built here.
    pub async fn build() -> Result<Self, String> {
        let id = std::process::id();
        let network = Self {
            name: format!("linkmic-{id}"),
            number: id % 250,
        };
        let (name, n) = (&network.name, network.number);
        ip(&format!("netns add {name}")).await?;
        for link in LINKS {
            let (near, far) = (network.device('n', link), network.device('f', link));
            ip(&format!(
                "link add {near} type veth peer name {far} netns {name}"
            ))
            .await?;
            ip(&format!("address add 10.{n}.{link}.1/30 dev {near}")).await?;
            ip(&format!(
                "-n {name} address add 10.{n}.{link}.2/30 dev {far}"
            ))
            .await?;
            ip(&format!("link set {near} up")).await?;
            ip(&format!("-n {name} link set {far} up")).await?;
        }
        Ok(network)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The server's address on the link that stays up.
    pub fn server(&self) -> String {
        format!("10.{}.{}.2", self.number, LINKS[0])
    }

    /// A URL of that server by the link that can go down.
    pub fn by_the_other_link(&self, url: &str) -> String {
        let other = format!("10.{}.{}.2", self.number, LINKS[1]);
        url.replace(&self.server(), &other)
    }

    /// Takes the other link down, at the server's end, or up again.
    pub async fn set_link(&self, up: bool) {
        let (name, device) = (&self.name, self.device('f', LINKS[1]));
        let state = if up { "up" } else { "down" };
        let set = ip(&format!("-n {name} link set {device} {state}")).await;
        set.expect("a link of ours");
    }

    fn device(&self, end: char, link: u32) -> String {
        // At most 15 characters.
        format!("lm{end}{link}-{}", self.number)
    }
}

const LINKS: [u32; 2] = [77, 78];

async fn ip(arguments: &str) -> Result<(), String> {
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let done = output("ip", &arguments, PATIENCE).await;
    done.map(drop).map_err(|e| e.to_string())
}

impl Drop for Network {
    fn drop(&mut self) {
        // The links go with it.
        let _ = std::process::Command::new("ip")
            .args(["netns", "del", &self.name])
            .output();
    }
}
