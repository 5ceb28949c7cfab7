//! What a word means that may name a network or a node.

use portolan::api::client::{Client, Failure, Lookup};
use portolan::api::types::{NetworkDetail, NodeDetail};

use super::segment;

/// Where the API has what a word names: `/v1/networks/ID` or `/v1/nodes/ID`. A full name wins over the start of an id.
///
/// # Errors
/// There is neither, there are both of that name, or the daemon did not say.
pub fn find(client: &Client, word: &str) -> Result<String, Failure> {
    let name = segment(word)?;
    let network = client.look_up::<NetworkDetail>(&format!("/v1/networks/{name}"))?;
    let node = client.look_up::<NodeDetail>(&format!("/v1/nodes/{name}"))?;
    let network = network.map(|it| (it.name, format!("/v1/networks/{}", it.id)));
    choose(word, network, node.map(|it| (it.name, format!("/v1/nodes/{}", it.id))))
}

/// A name and its path, if there is such a thing.
type Found = Lookup<(String, String)>;

/// Chooses of a network and a node what the word is meant to name. Where it is the start of several ids of one kind, it may be
/// a full name of the other.
fn choose(word: &str, network: Found, node: Found) -> Result<String, Failure> {
    use Lookup::{Absent, Several, There};
    match (network, node) {
        (Several(_), There((name, path))) | (There((name, path)), Several(_)) if name == word => {
            Ok(path)
        }
        (Several(refusal), _) | (_, Several(refusal)) => Err(refusal),
        (There((network, path)), There((node, other))) => match (network == word, node == word) {
            (true, false) => Ok(path),
            (false, true) => Ok(other),
            _ => Err(Failure::new(format!(
                "{word:?} is both a network and a node: give the id of the one you mean"
            ))),
        },
        (There((_, path)), Absent) | (Absent, There((_, path))) => Ok(path),
        (Absent, Absent) => Err(Failure::new(format!(
            "there is no network and no node {word:?}: `portolan network ls` and `portolan ps` list them"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, path: &str) -> Found {
        Lookup::There((name.to_owned(), path.to_owned()))
    }

    fn chosen(word: &str, network: Option<&str>, node: Option<&str>) -> Result<String, String> {
        let network = network.map_or(Lookup::Absent, |name| found(name, "network"));
        let node = node.map_or(Lookup::Absent, |name| found(name, "node"));
        choose(word, network, node).map_err(|failure| failure.message)
    }

    #[test]
    fn a_full_name_wins_over_the_start_of_an_id() {
        assert_eq!(chosen("a", Some("a"), None).unwrap(), "network");
        assert_eq!(chosen("a", None, Some("a")).unwrap(), "node");
        assert_eq!(chosen("a", Some("a"), Some("web")).unwrap(), "network");
        assert_eq!(chosen("a", Some("app"), Some("a")).unwrap(), "node");
    }

    #[test]
    fn a_full_name_wins_over_the_start_of_several_ids() {
        let several = || Lookup::Several(Failure::new("several"));
        let named = |name: &str| found(name, "path");
        assert_eq!(choose("a", several(), named("a")).unwrap(), "path");
        assert_eq!(choose("a", named("a"), several()).unwrap(), "path");
        for (network, node) in
            [(several(), named("web")), (several(), Lookup::Absent), (several(), several())]
        {
            assert_eq!(choose("a", network, node).unwrap_err().message, "several");
        }
    }

    #[test]
    fn what_may_be_either_is_not_guessed() {
        for (network, node) in [("a", "a"), ("app", "web")] {
            let why = chosen("a", Some(network), Some(node)).unwrap_err();
            assert!(why.starts_with("\"a\" is both a network and a node"), "{why}");
        }
        let why = chosen("a", None, None).unwrap_err();
        assert!(why.starts_with("there is no network and no node \"a\""), "{why}");
    }
}
