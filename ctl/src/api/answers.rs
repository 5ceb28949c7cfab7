//! How the API hears and answers, whatever it is about: the parts of a request, and refusals.
//!
//! Whatever a client gets wrong is refused as everything else is, with a line that says what: no part of a request is read by
//! something that answers by itself.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Json, Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{IntoParams, IntoResponses};

use crate::api::types::ErrorBody;
use crate::daemon::Daemon;
use crate::topology::{Refusal, RefusalKind};

/// A client has this long to send the body of its request.
const BODY_WAIT: Duration = Duration::from_secs(10);

/// Bytes of a value that is told with what is wrong with it.
const TOLD_MAX: usize = 256;

/// What a route is given of the daemon.
pub(super) type Daemons = State<Arc<Daemon>>;

/// What a route answers with, or why it does not.
pub(super) type Answer<T> = Result<Json<T>, Refusal>;

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self.kind {
            RefusalKind::Invalid => StatusCode::BAD_REQUEST,
            RefusalKind::NotFound => StatusCode::NOT_FOUND,
            RefusalKind::Conflict => StatusCode::CONFLICT,
            RefusalKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(ErrorBody { message: self.message })).into_response()
    }
}

impl From<BytesRejection> for Refusal {
    fn from(rejection: BytesRejection) -> Refusal {
        refusal(RefusalKind::Invalid, rejection.body_text())
    }
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Refusal {
        let why = rejection.source().map_or_else(|| rejection.body_text(), ToString::to_string);
        refusal(RefusalKind::Invalid, format!("the query of the request: {why}"))
    }
}

impl From<PathRejection> for Refusal {
    fn from(rejection: PathRejection) -> Refusal {
        refusal(RefusalKind::Invalid, rejection.body_text())
    }
}

pub(super) fn refusal(kind: RefusalKind, message: impl Into<String>) -> Refusal {
    // What a library says may have several lines; a refusal has one.
    let message: String = message.into();
    Refusal { kind, message: message.lines().collect::<Vec<_>>().join("; ") }
}

pub(super) fn answer<T>(result: Result<T, Refusal>) -> Answer<T> {
    result.map(Json)
}

/// A JSON body.
pub(super) struct Body<T>(pub T);

impl<T: DeserializeOwned + Serialize, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Body<T>, Refusal> {
        let (parts, body) = request.into_parts();
        let whole = Request::from_parts(parts.clone(), body);
        let read = tokio::time::timeout(BODY_WAIT, Bytes::from_request(whole, state)).await;
        let missing = |_| refusal(RefusalKind::Invalid, "the body of the request does not come");
        let bytes = read.map_err(missing)??;
        let whole = Request::from_parts(parts, bytes.clone().into());
        let read = Json::<T>::from_request(whole, state).await;
        let Json(taken) = read.map_err(|rejection| no_body(&rejection, &bytes))?;
        if let Some(place) = listed(&bytes, &taken) {
            let why = "a list stands where an object is needed, whose fields have names";
            let message = format!("the body of the request{place}: {why}");
            return Err(refusal(RefusalKind::Invalid, message));
        }
        Ok(Body(taken))
    }
}

/// Where a list was taken for an object, at whatever depth: what is derived for a type takes its fields by name, but a list of
/// them in order as well.
fn listed<T: Serialize>(given: &[u8], taken: &T) -> Option<String> {
    fn at(place: String, given: &Value, taken: &Value) -> Option<String> {
        match (given, taken) {
            (Value::Array(_), Value::Object(_)) if place.is_empty() => Some(place),
            (Value::Array(_), Value::Object(_)) => Some(format!(": {}", place.trim_matches('.'))),
            (Value::Array(given), Value::Array(taken)) => (given.iter().zip(taken).enumerate())
                .find_map(|(i, (given, taken))| at(format!("{place}[{i}]"), given, taken)),
            (Value::Object(given), Value::Object(taken)) => given
                .iter()
                .find_map(|(name, given)| at(format!("{place}.{name}"), given, taken.get(name)?)),
            _ => None,
        }
    }
    let given = serde_json::from_slice(given).ok()?;
    at(String::new(), &given, &serde_json::to_value(taken).ok()?)
}

/// Why a body is not one of the request, with the value where the reason does not tell it.
fn no_body(rejection: &JsonRejection, given: &[u8]) -> Refusal {
    let message = match (rejection, rejection.source()) {
        (JsonRejection::JsonDataError(_), Some(why)) => {
            let why = why.to_string();
            let named = why.split_once(": ").and_then(|(place, what)| {
                let value = text_at(place, given).filter(|value| !what.contains(value))?;
                Some(format!("{place}: {value:?}: {what}"))
            });
            format!("the body of the request: {}", named.unwrap_or(why))
        }
        (JsonRejection::JsonSyntaxError(_), Some(why)) => {
            format!("the body of the request is no JSON: {why}")
        }
        _ => rejection.body_text(),
    };
    refusal(RefusalKind::Invalid, message)
}

/// The text at a place such as `IPAM.Config[0].Subnet`, where it is short enough to be told.
fn text_at(place: &str, given: &[u8]) -> Option<String> {
    let given: Value = serde_json::from_slice(given).ok()?;
    let step = |at: &Value, word: &str| match word.strip_suffix(']') {
        Some(index) => at.get(index.parse::<usize>().ok()?).cloned(),
        None => at.get(word).cloned(),
    };
    let found = place.split(['.', '[']).try_fold(given, |at, word| step(&at, word))?;
    found.as_str().filter(|text| text.len() <= TOLD_MAX).map(str::to_owned)
}

/// Reads a whole number of a query; says what is wrong with it, which no type of the standard library does.
pub(super) fn number<'de, T: TryFrom<i128>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    let text = String::deserialize(from)?;
    let whole: i128 =
        text.parse().map_err(|_| D::Error::custom(format!("{text:?} is no whole number")))?;
    let side = if whole < 0 { "small" } else { "large" };
    T::try_from(whole).map_err(|_| D::Error::custom(format!("{whole} is too {side}")))
}

/// As [`number`], for one that may be left out.
pub(super) fn some_number<'de, T: TryFrom<i128>, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    number(from).map(Some)
}

/// The query part of a path.
#[derive(FromRequestParts)]
#[from_request(via(Query), rejection(Refusal))]
pub(super) struct Asked<T>(pub T);

/// The variable part of a path.
#[derive(FromRequestParts)]
#[from_request(via(Path), rejection(Refusal))]
pub(super) struct At<T>(pub T);

/// What a path names.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct Named {
    /// Name or id, or the start of an id.
    pub name: String,
}

/// `?force=true`
#[derive(Deserialize, Default, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(super) struct Force {
    /// Also where something is in use.
    pub force: bool,
}

/// The answers of a route that may refuse, as its description has them.
pub(super) struct Refused;

impl IntoResponses for Refused {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let all = [
            ("400", "The request is not one, or asks for what cannot be."),
            ("404", "What is named is not there."),
            ("409", "What is asked for is in the way of something that is there."),
            ("500", "The daemon or the system failed."),
        ];
        let response = |why: &str| {
            let body = Ref::from_schema_name("ErrorBody");
            let content = ContentBuilder::new().schema(Some(body)).build();
            ResponseBuilder::new().description(why).content("application/json", content).build()
        };
        all.into_iter().map(|(status, why)| (status.to_owned(), response(why).into())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::NetworkCreate;

    fn place(body: &str) -> Option<String> {
        listed(body.as_bytes(), &serde_json::from_str::<NetworkCreate>(body).unwrap())
    }

    #[test]
    fn a_list_is_not_taken_for_an_object_at_any_depth() {
        let subnet = r#"{"Subnet": "10.0.0.0/24", "AuxiliaryAddresses": {"a": "10.0.0.9"}}"#;
        let named = format!(
            r#"{{"Name": "a", "IPAM": {{"Config": [{subnet}]}}, "Labels": {{"k": "[]"}}}}"#
        );
        assert_eq!(place(&named), None);
        assert_eq!(place("{}"), None);
        assert_eq!(place(r#"["a"]"#).as_deref(), Some(""));
        assert_eq!(place(&format!(r#"{{"IPAM": [[{subnet}]]}}"#)).as_deref(), Some(": IPAM"));
        let second = format!(r#"{{"IPAM": {{"Config": [{subnet}, ["10.0.0.0/24"]]}}}}"#);
        assert_eq!(place(&second).as_deref(), Some(": IPAM.Config[1]"));
    }

    #[test]
    fn a_number_of_a_query_is_refused_by_what_it_is_and_by_the_name_of_its_field() {
        #[derive(Deserialize)]
        struct Waited {
            #[serde(deserialize_with = "number")]
            t: u64,
        }
        let read = |query: &str| {
            let uri = format!("/?{query}").parse().unwrap();
            let read = Query::<Waited>::try_from_uri(&uri).map(|Query(waited)| waited.t);
            read.map_err(|rejection| Refusal::from(rejection).message)
        };
        assert_eq!(read("t=10"), Ok(10));
        let huge = u64::MAX.to_string() + "0";
        for (text, why) in [
            ("ten", "\"ten\" is no whole number"),
            ("", "\"\" is no whole number"),
            ("-1", "-1 is too small"),
            (&huge, &format!("{huge} is too large")),
        ] {
            let said = read(&format!("t={text}")).unwrap_err();
            assert_eq!(said, format!("the query of the request: t: {why}"));
        }
    }

    async fn refused(body: &'static str) -> String {
        let request = Request::post("/").header("content-type", "application/json");
        let request = request.body(body.into()).unwrap();
        Body::<NetworkCreate>::from_request(request, &()).await.err().unwrap().message
    }

    #[tokio::test]
    async fn what_is_wrong_in_a_body_is_told_by_the_place_where_it_stands() {
        for (body, said) in [
            (
                r#"{"Name": 5}"#,
                "Name: invalid type: integer `5`, expected a string at line 1 column 10",
            ),
            (
                r#"{"Name": "a", "IPAM": {"Config": [{"Subnet": "10.0.0.0"}]}}"#,
                r#"IPAM.Config[0].Subnet: "10.0.0.0": invalid IP address syntax at line 1 column 55"#,
            ),
            (
                r#"{"IPAM": {"Config": [["10.0.0.0/24"]]}}"#,
                "IPAM.Config[0]: a list stands where an object is needed, whose fields have names",
            ),
        ] {
            assert_eq!(refused(body).await, format!("the body of the request: {said}"));
        }
        assert_eq!(
            refused(r#"{"Name": "a""#).await,
            "the body of the request is no JSON: EOF while parsing an object at line 1 column 12"
        );
    }
}
