//! Small changes that are asked for, and what came of them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST /v1/networks/prune`
#[derive(Deserialize, Serialize, ToSchema, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct Prune {
    /// Only networks that bear all these labels, each `K` or `K=V`.
    pub labels: Vec<String>,
}

/// Its answer.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Pruned {
    /// Names of the networks that are gone.
    pub networks_deleted: Vec<String>,
}

/// `POST /v1/nodes/{name}/rename`
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Rename {
    /// The new name.
    pub name: String,
}
