//! Which networks a listing or a prune means, in Docker's words.

use super::model::Network;
use super::{Moment, Refusal, RefusalKind};

/// Conditions on networks. Those of one key are alternatives, but labels must all be borne; the keys must all fit.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NetworkFilter {
    drivers: Vec<String>,
    ids: Vec<String>,
    names: Vec<String>,
    scopes: Vec<String>,
    labels: Vec<String>,
    labels_not: Vec<String>,
    /// Whether predefined networks are wanted, any of these.
    predefined: Vec<bool>,
    dangling: Option<bool>,
    until: Option<Moment>,
}

impl NetworkFilter {
    /// Networks that bear all these labels, each `KEY` or `KEY=VALUE`.
    pub fn labels(labels: &[String]) -> NetworkFilter {
        NetworkFilter { labels: labels.to_vec(), ..NetworkFilter::default() }
    }

    /// Reads conditions of the form `KEY=VALUE`: driver, id, name (a part of it), scope, label, label!, type (custom or
    /// builtin), dangling, until (seconds since 1970, or an age like 24h).
    ///
    /// # Errors
    /// Every condition that makes no sense.
    pub fn parse(conditions: &[String], now: Moment) -> Result<NetworkFilter, Refusal> {
        let mut filter = NetworkFilter::default();
        let bad: Vec<String> =
            conditions.iter().filter_map(|condition| filter.add(condition, now).err()).collect();
        if bad.is_empty() {
            Ok(filter)
        } else {
            Err(Refusal::new(RefusalKind::Invalid, bad.join("; ")))
        }
    }

    fn add(&mut self, condition: &str, now: Moment) -> Result<(), String> {
        let wrong = |what: &str| format!("invalid filter {condition:?}: {what}");
        let (key, value) = condition
            .split_once("!=")
            .filter(|(key, _)| *key == "label")
            .map(|(_, value)| ("label!", value))
            .or_else(|| condition.split_once('='))
            .ok_or_else(|| wrong("KEY=VALUE is needed"))?;
        let text = value.to_string();
        match key {
            "driver" => self.drivers.push(text),
            "id" => self.ids.push(text),
            "name" => self.names.push(text),
            "scope" => self.scopes.push(text),
            "label" => self.labels.push(text),
            "label!" => self.labels_not.push(text),
            "type" if value == "builtin" => self.predefined.push(true),
            "type" if value == "custom" => self.predefined.push(false),
            "type" => return Err(wrong("type is builtin or custom")),
            "dangling" => {
                let yes = match value {
                    "true" | "1" => true,
                    "false" | "0" => false,
                    _ => return Err(wrong("dangling is true or false")),
                };
                self.dangling = Some(yes);
            }
            "until" => {
                let until = until(value, now)
                    .ok_or_else(|| wrong("an age like 24h or seconds since 1970 are needed"))?;
                self.until = Some(until);
            }
            _ => {
                return Err(wrong(
                    "the keys are driver, id, name, scope, label, type, dangling and until",
                ));
            }
        }
        Ok(())
    }

    /// Whether a network fits; `in_use` says whether running nodes are on it.
    pub fn fits(&self, network: &Network, in_use: bool) -> bool {
        let any = |wanted: &[String], fits: &dyn Fn(&String) -> bool| {
            wanted.is_empty() || wanted.iter().any(fits)
        };
        let id = network.id.to_string();
        let bears = |label: &String| match label.split_once('=') {
            Some((key, value)) => network.labels.get(key).is_some_and(|have| have == value),
            None => network.labels.contains_key(label),
        };
        any(&self.drivers, &|driver| driver == network.form.driver())
            && any(&self.ids, &|part| id.contains(part.as_str()))
            && any(&self.names, &|part| network.name.contains(part.as_str()))
            && any(&self.scopes, &|scope| scope == "local")
            && self.labels.iter().all(bears)
            && !self.labels_not.iter().any(bears)
            && (self.predefined.is_empty() || self.predefined.contains(&network.predefined))
            && self.dangling.is_none_or(|dangling| dangling != (in_use || network.predefined))
            && self.until.is_none_or(|until| network.created < until)
    }
}

/// A point in time: seconds since 1970, or an age such as `90s`, `10m` or `1h30m` before now.
fn until(text: &str, now: Moment) -> Option<Moment> {
    const NANOS: i64 = 1_000_000_000;
    if let Ok(seconds) = text.parse::<i64>() {
        return seconds.checked_mul(NANOS).map(Moment);
    }
    let (mut age, mut count) = (0i64, None::<i64>);
    for letter in text.chars() {
        let unit = match letter {
            '0'..='9' => {
                let digit = i64::from(letter.to_digit(10)?);
                count = Some(count.unwrap_or(0).checked_mul(10)?.checked_add(digit)?);
                continue;
            }
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return None,
        };
        age = age.checked_add(count.take()?.checked_mul(unit)?)?;
    }
    if text.is_empty() || count.is_some() {
        return None;
    }
    now.0.checked_sub(age.checked_mul(NANOS)?).map(Moment)
}
