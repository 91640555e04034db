//! Versions of the CNI specification and what each of them allows.

use agent_api::cni::{CniError, ErrorCode, SUPPORTED_VERSIONS};

/// A version that we speak; ordered by age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(usize);

impl Version {
    pub(crate) const V0_2_0: Self = Self(1);
    pub(crate) const V0_4_0: Self = Self(4);
    pub(crate) const V1_0_0: Self = Self(5);
    pub(crate) const LATEST: Self = Self(SUPPORTED_VERSIONS.len() - 1);

    /// Finds a version. An empty one means the first, which had no such key.
    pub(crate) fn find(text: &str) -> Result<Self, CniError> {
        if text.is_empty() {
            return Ok(Self(0));
        }
        SUPPORTED_VERSIONS.iter().position(|known| *known == text).map(Self).ok_or_else(|| {
            let known = SUPPORTED_VERSIONS.join(", ");
            let msg = format!("cniVersion {text:?} is not supported; set cniVersion in the network configuration to one of {known}");
            CniError::new(ErrorCode::INCOMPATIBLE_VERSION, msg)
        })
    }

    /// As it is written.
    pub(crate) const fn as_str(self) -> &'static str {
        SUPPORTED_VERSIONS[self.0]
    }

    /// Refuses a command that the version does not have yet.
    pub(crate) fn require(self, command: &str, since: Self) -> Result<(), CniError> {
        if self >= since {
            return Ok(());
        }
        let msg = format!(
            "{command} came with CNI {}, but the network configuration says {}; raise its cniVersion",
            since.as_str(),
            self.as_str()
        );
        Err(CniError::new(ErrorCode::INCOMPATIBLE_VERSION, msg))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_versions_are_where_they_belong() {
        assert_eq!(Version::V0_2_0.as_str(), "0.2.0");
        assert_eq!(Version::V0_4_0.as_str(), "0.4.0");
        assert_eq!(Version::V1_0_0.as_str(), "1.0.0");
        assert_eq!(Version::LATEST.as_str(), "1.1.0");
        assert_eq!(Version::find("").unwrap().as_str(), "0.1.0");
        assert_eq!(Version::find("1.2.0").unwrap_err().code, ErrorCode::INCOMPATIBLE_VERSION);
        assert!(Version::find("1.1.0").unwrap() > Version::V1_0_0);
    }
}
