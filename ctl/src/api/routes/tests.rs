use std::collections::BTreeSet;

use portolan_switch::command::GroupKind;
use serde_json::Value;

use super::*;

fn described_json() -> Value {
    serde_json::to_value(document()).unwrap()
}

/// Every operation: path, method and what is said of it.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().unwrap();
    let of_path = |(path, item): (&String, &Value)| {
        let item = item.as_object().unwrap().clone();
        let path = path.clone();
        item.into_iter().map(move |(method, what)| (path.clone(), method, what))
    };
    paths.iter().flat_map(of_path).collect()
}

/// All values of that key, anywhere.
fn all_of<'v>(key: &str, value: &'v Value, found: &mut Vec<&'v Value>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get(key));
            fields.values().for_each(|field| all_of(key, field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| all_of(key, item, found)),
        _ => {}
    }
}

#[test]
fn the_document_is_one_of_openapi_and_all_that_it_refers_to_is_in_it() {
    let document = described_json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let mut references = Vec::new();
    all_of("$ref", &document, &mut references);
    assert!(references.len() > 50);
    for reference in references {
        let place = reference.as_str().unwrap().strip_prefix('#').unwrap();
        assert!(document.pointer(place).is_some(), "{place}");
    }
}

#[test]
fn the_kinds_of_rows_of_groups_are_all_told_of() {
    let document = described_json();
    let kind = &document["components"]["schemas"]["GroupEntry"]["properties"]["Kind"];
    let told = kind["description"].as_str().unwrap();
    for known in [GroupKind::Member, GroupKind::Router, GroupKind::Everything] {
        assert!(told.contains(&format!("`{}`", known.name())), "{known:?} in {told}");
    }
}

#[test]
fn every_operation_says_what_it_does_what_it_takes_and_how_it_answers() {
    let document = described_json();
    let mut names = BTreeSet::new();
    for (path, method, what) in operations(&document) {
        let here = format!("{method} {path}");
        assert!(names.insert(what["operationId"].as_str().unwrap().to_owned()), "{here}");
        assert!(what["summary"].as_str().is_some_and(|text| !text.is_empty()), "{here}");
        let answers = what["responses"].as_object().unwrap();
        assert!(answers.contains_key("200") || answers.contains_key("201"), "{here}");
        for (status, answer) in answers {
            assert!(answer["description"].as_str().is_some_and(|text| !text.is_empty()), "{here}");
            if !status.starts_with('2') {
                let body = &answer["content"]["application/json"]["schema"]["$ref"];
                assert_eq!(body, "#/components/schemas/ErrorBody", "{here} {status}");
            }
        }
        let variables: BTreeSet<&str> =
            path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        let parameters = what["parameters"].as_array().cloned().unwrap_or_default();
        let in_path = parameters.iter().filter(|parameter| parameter["in"] == "path");
        let told: BTreeSet<&str> = in_path.map(|one| one["name"].as_str().unwrap()).collect();
        assert_eq!(told, variables, "{here}");
        for parameter in &parameters {
            assert!(parameter["schema"].is_object(), "{here}");
            assert!(parameter["description"].is_string(), "{here}: {parameter}");
        }
        if let Some(body) = what.get("requestBody") {
            assert!(body["content"]["application/json"]["schema"].is_object(), "{here}");
        }
    }
}

/// A route that is not put in by `routes!` would be served and not described.
#[test]
fn no_route_is_added_without_a_description() {
    let sources = [
        include_str!("mod.rs"),
        include_str!("networks.rs"),
        include_str!("nodes.rs"),
        include_str!("system.rs"),
        include_str!("../server.rs"),
    ];
    for source in sources {
        for way in [".route(", ".route_service(", ".nest(", ".nest_service(", "axum::routing"] {
            assert!(!source.contains(way), "{way}");
        }
    }
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src/api/routes");
    let files = std::fs::read_dir(directory).unwrap().count();
    assert_eq!(files, sources.len(), "a file of routes that is not looked at here");
}
