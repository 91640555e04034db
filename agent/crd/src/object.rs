//! What all kinds have in common, and how objects come in and go out.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::meta::ObjectMeta;

/// A kind of object.
pub trait Object: Serialize + DeserializeOwned {
    /// API group.
    const GROUP: &'static str;
    /// The version in which these types read and write it.
    const VERSION: &'static str;
    /// Kind.
    const KIND: &'static str;
    /// Plural, as in paths of the API.
    const PLURAL: &'static str;
    /// True: objects of a namespace; false: objects of the cluster.
    const NAMESPACED: bool;

    /// Its metadata.
    fn metadata(&self) -> &ObjectMeta;

    /// Its metadata, to change it.
    fn metadata_mut(&mut self) -> &mut ObjectMeta;

    /// `group/version`.
    fn api_version() -> String {
        format!("{}/{}", Self::GROUP, Self::VERSION)
    }

    /// Reads an object as it comes from the API. Fields that the types do not know are skipped; see
    /// [`crate::schema::unknown_fields`] for a list of them.
    ///
    /// # Errors
    /// When a field has the wrong type or a required one is missing: with the object's name, to be told to its owner.
    fn from_json(value: Value) -> Result<Self, ReadError> {
        let name = |key: &str| value["metadata"][key].as_str().unwrap_or_default().to_owned();
        let (namespace, name) = (name("namespace"), name("name"));
        serde_path_to_error::deserialize(value).map_err(|source| ReadError {
            kind: Self::KIND,
            namespace,
            name,
            source,
        })
    }

    /// The object as the API takes it, with `apiVersion` and `kind`.
    fn to_json(&self) -> Value {
        let mut object = serde_json::Map::new();
        object.insert("apiVersion".to_owned(), Self::api_version().into());
        object.insert("kind".to_owned(), Self::KIND.into());
        // The types hold text, numbers, lists and maps with text keys, all of which JSON can say.
        let fields = serde_json::to_value(self).expect("an object is plain data");
        if let Value::Object(fields) = fields {
            object.extend(fields);
        }
        Value::Object(object)
    }
}

/// An object that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("read {kind} {namespace}/{name}")]
pub struct ReadError {
    /// Its kind.
    pub kind: &'static str,
    /// Its namespace, empty for objects of the cluster.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What is wrong, with the field that is at fault.
    #[source]
    pub source: serde_path_to_error::Error<serde_json::Error>,
}

macro_rules! object {
    ($name:ident, $group:literal, $version:literal, $plural:literal, namespaced: $namespaced:literal) => {
        impl $crate::object::Object for $name {
            const GROUP: &'static str = $group;
            const VERSION: &'static str = $version;
            const KIND: &'static str = stringify!($name);
            const PLURAL: &'static str = $plural;
            const NAMESPACED: bool = $namespaced;

            fn metadata(&self) -> &$crate::meta::ObjectMeta {
                &self.metadata
            }

            fn metadata_mut(&mut self) -> &mut $crate::meta::ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

pub(crate) use object;
