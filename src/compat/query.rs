//! The query of a legacy call.

use url::form_urlencoded;

/// Parameters in their order, decoded.
#[derive(Debug, Clone, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads what stands behind the `?`.
    pub fn parse(raw: &str) -> Self {
        let pairs = form_urlencoded::parse(raw.as_bytes());
        Self(pairs.into_owned().collect())
    }

    /// The first parameter of that name. Its case does not matter: the documents print `appid` and `APPID`.
    pub fn get(&self, name: &str) -> Option<&str> {
        let named = |(key, _): &&(String, String)| key.eq_ignore_ascii_case(name);
        self.0
            .iter()
            .find(named)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// The interface's own parameter of that name, `Param.s.name` for texts and `Param.n.name` for numbers; callers mix
    /// the two up.
    pub fn param(&self, name: &str) -> Option<&str> {
        ["s", "n"]
            .iter()
            .find_map(|kind| self.get(&format!("Param.{kind}.{name}")))
    }

    /// As [`Self::param`], as a number; `None` also when it is none.
    pub fn number(&self, name: &str) -> Option<i64> {
        self.param(name)?.trim().parse().ok()
    }

    /// The interface that is called, in lower case, without what callers put behind a dot: they send
    /// `mix_streamv2.start_mix_stream_advanced` also when the body asks for a cancel.
    pub fn interface(&self) -> String {
        let name = self.get("interface").unwrap_or_default();
        let name = name.split('.').next().unwrap_or_default();
        name.trim().to_ascii_lowercase()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_in_any_order_and_spelling() {
        let query = Query::parse("t=7&Param.n.page_no=2&CMD=12&Param.s.channel_id=8888%5Fa&sign=");
        assert_eq!(query.get("cmd"), Some("12"));
        assert_eq!(query.get("sign"), None, "empty is absent");
        assert_eq!(query.param("channel_id"), Some("8888_a"));
        assert_eq!(query.number("page_no"), Some(2));
        assert_eq!(query.number("channel_id"), None);
    }

    #[test]
    fn the_interface_is_what_stands_before_the_dot() {
        for (text, interface) in [
            ("interface=Mix_StreamV2", "mix_streamv2"),
            ("interface=mix_streamv2", "mix_streamv2"),
            (
                "interface=mix_streamv2.start_mix_stream_advanced",
                "mix_streamv2",
            ),
            ("interface=Mix_Stream", "mix_stream"),
            ("interface=Live_Channel_GetStatus", "live_channel_getstatus"),
            ("", ""),
        ] {
            assert_eq!(Query::parse(text).interface(), interface, "{text}");
        }
    }
}
