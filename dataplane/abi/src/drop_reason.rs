//! Why a packet was dropped or counted. Numbers, names and texts as Cilium's monitor, metrics and Hubble print them; append only.

use core::fmt;

macro_rules! drop_reasons {
    ($($variant:ident = $number:literal, $name:literal, $text:literal;)*) => {
        /// Why a packet was dropped. Every dropped packet has exactly one.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        #[non_exhaustive]
        #[allow(clippy::doc_markdown, reason = "the texts are ABI, not prose")]
        pub enum DropReason {
            $(
                #[doc = $text]
                $variant = $number,
            )*
        }

        impl DropReason {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The reason with this number.
            pub const fn from_number(number: u8) -> Option<Self> {
                Some(match number {
                    $($number => Self::$variant,)*
                    _ => return None,
                })
            }

            /// Name in flows and in `hubble_drop_total`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// Text for people and for the drop counters.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

drop_reasons! {
    InvalidSourceMac = 130, "INVALID_SOURCE_MAC", "Invalid source mac";
    InvalidDestinationMac = 131, "INVALID_DESTINATION_MAC", "Invalid destination mac";
    InvalidSourceIp = 132, "INVALID_SOURCE_IP", "Invalid source ip";
    PolicyDenied = 133, "POLICY_DENIED", "Policy denied";
    InvalidPacket = 134, "INVALID_PACKET_DROPPED", "Invalid packet";
    CtInvalidHeader = 135, "CT_TRUNCATED_OR_INVALID_HEADER", "CT: Truncated or invalid header";
    FragmentationNeeded = 136, "CT_MISSING_TCP_ACK_FLAG", "Fragmentation needed";
    CtUnknownProtocol = 137, "CT_UNKNOWN_L4_PROTOCOL", "CT: Unknown L4 protocol";
    CtCannotCreate = 138, "CT_CANNOT_CREATE_ENTRY_FROM_PACKET", "CT: Can't create entry from packet";
    UnsupportedL3 = 139, "UNSUPPORTED_L3_PROTOCOL", "Unsupported L3 protocol";
    MissedTailCall = 140, "MISSED_TAIL_CALL", "Missed tail call";
    WriteError = 141, "ERROR_WRITING_TO_PACKET", "Error writing to packet";
    UnknownL4 = 142, "UNKNOWN_L4_PROTOCOL", "Unknown L4 protocol";
    UnknownIcmp4Code = 143, "UNKNOWN_ICMPV4_CODE", "Unknown ICMPv4 code";
    UnknownIcmp4Type = 144, "UNKNOWN_ICMPV4_TYPE", "Unknown ICMPv4 type";
    UnknownIcmp6Code = 145, "UNKNOWN_ICMPV6_CODE", "Unknown ICMPv6 code";
    UnknownIcmp6Type = 146, "UNKNOWN_ICMPV6_TYPE", "Unknown ICMPv6 type";
    NoTunnelKey = 147, "ERROR_RETRIEVING_TUNNEL_KEY", "Error retrieving tunnel key";
    NoTunnelOptions = 148, "ERROR_RETRIEVING_TUNNEL_OPTIONS", "Error retrieving tunnel options";
    InvalidGeneveOption = 149, "INVALID_GENEVE_OPTION", "Invalid Geneve option";
    UnknownTarget = 150, "UNKNOWN_L3_TARGET_ADDRESS", "Unknown L3 target address";
    Unroutable = 151, "STALE_OR_UNROUTABLE_IP", "Stale or unroutable IP";
    NoLocalContainer = 152, "NO_MATCHING_LOCAL_CONTAINER_FOUND", "No matching local container found";
    L3ChecksumError = 153, "ERROR_WHILE_CORRECTING_L3_CHECKSUM", "Error while correcting L3 checksum";
    L4ChecksumError = 154, "ERROR_WHILE_CORRECTING_L4_CHECKSUM", "Error while correcting L4 checksum";
    CtCreateFailed = 155, "CT_MAP_INSERTION_FAILED", "CT: Map insertion failed";
    InvalidExtensionHeader = 156, "INVALID_IPV6_EXTENSION_HEADER", "Invalid IPv6 extension header";
    FragmentsUnsupported = 157, "IP_FRAGMENTATION_NOT_SUPPORTED", "IP fragmentation not supported";
    NoServiceBackend = 158, "SERVICE_BACKEND_NOT_FOUND", "Service backend not found";
    UnsupportedServiceProtocol = 159, "DROP_UNSUPP_SERVICE_PROTO", "Unsupported service protocol";
    NoTunnelEndpoint = 160, "NO_TUNNEL_OR_ENCAPSULATION_ENDPOINT", "No tunnel/encapsulation endpoint (datapath BUG!)";
    Nat46x64Disabled = 161, "FAILED_TO_INSERT_INTO_PROXYMAP", "NAT 46/64 not enabled";
    EdtHorizon = 162, "REACHED_EDT_RATE_LIMITING_DROP_HORIZON", "Reached EDT rate-limiting drop horizon";
    UnknownCtState = 163, "UNKNOWN_CONNECTION_TRACKING_STATE", "Unknown connection tracking state";
    HostUnreachable = 164, "LOCAL_HOST_IS_UNREACHABLE", "Local host is unreachable";
    NoConfig = 165, "NO_CONFIGURATION_AVAILABLE_TO_PERFORM_POLICY_DECISION", "No configuration available to perform policy decision";
    UnsupportedL2 = 166, "UNSUPPORTED_L2_PROTOCOL", "Unsupported L2 protocol";
    NatNoMapping = 167, "NO_MAPPING_FOR_NAT_MASQUERADE", "No mapping for NAT masquerade";
    NatUnsupportedProtocol = 168, "UNSUPPORTED_PROTOCOL_FOR_NAT_MASQUERADE", "Unsupported protocol for NAT masquerade";
    NoFib = 169, "FIB_LOOKUP_FAILED", "FIB lookup failed";
    EncapProhibited = 170, "ENCAPSULATION_TRAFFIC_IS_PROHIBITED", "Encapsulation traffic is prohibited";
    InvalidIdentity = 171, "INVALID_IDENTITY", "Invalid identity";
    UnknownSender = 172, "UNKNOWN_SENDER", "Unknown sender";
    NatNotNeeded = 173, "NAT_NOT_NEEDED", "NAT not needed";
    IsClusterIp = 174, "IS_A_CLUSTERIP", "Is a ClusterIP";
    FragmentNotFound = 175, "FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND", "First logical datagram fragment not found";
    ForbiddenIcmp6 = 176, "FORBIDDEN_ICMPV6_MESSAGE", "Forbidden ICMPv6 message";
    NotInSourceRange = 177, "DENIED_BY_LB_SRC_RANGE_CHECK", "Denied by LB src range check";
    SocketLookupFailed = 178, "SOCKET_LOOKUP_FAILED", "Socket lookup failed";
    SocketAssignFailed = 179, "SOCKET_ASSIGN_FAILED", "Socket assign failed";
    ProxyUnknownProtocol = 180, "PROXY_REDIRECTION_NOT_SUPPORTED_FOR_PROTOCOL", "Proxy redirection not supported for protocol";
    PolicyDenyRule = 181, "POLICY_DENY", "Policy denied by denylist";
    VlanFiltered = 182, "VLAN_FILTERED", "VLAN traffic disallowed by VLAN filter";
    InvalidVni = 183, "INVALID_VNI", "Incorrect VNI from VTEP";
    InvalidTcBuffer = 184, "INVALID_TC_BUFFER", "Failed to update or lookup TC buffer";
    NoSid = 185, "NO_SID", "No SID was found for the IP address";
    MissingSrv6State = 186, "MISSING_SRV6_STATE", "SRv6 state was removed during tail call";
    Nat46 = 187, "NAT46", "L3 translation from IPv4 to IPv6 failed (NAT46)";
    Nat64 = 188, "NAT64", "L3 translation from IPv6 to IPv4 failed (NAT64)";
    AuthRequired = 189, "AUTH_REQUIRED", "Authentication required";
    CtNoMap = 190, "CT_NO_MAP_FOUND", "No conntrack map found";
    SnatNoMap = 191, "SNAT_NO_MAP_FOUND", "No nat map found";
    InvalidClusterId = 192, "INVALID_CLUSTER_ID", "Invalid ClusterID";
    DsrEncapUnsupportedProtocol = 193, "UNSUPPORTED_PROTOCOL_FOR_DSR_ENCAP", "Unsupported packet protocol for DSR encapsulation";
    NoEgressGateway = 194, "NO_EGRESS_GATEWAY", "No egress gateway found";
    UnencryptedTraffic = 195, "UNENCRYPTED_TRAFFIC", "Traffic is unencrypted";
    TtlExceeded = 196, "TTL_EXCEEDED", "TTL exceeded";
    NoNodeId = 197, "NO_NODE_ID", "No node ID found";
    RateLimited = 198, "DROP_RATE_LIMITED", "Rate limited";
    IgmpHandled = 199, "IGMP_HANDLED", "IGMP handled";
    IgmpSubscribed = 200, "IGMP_SUBSCRIBED", "IGMP subscribed";
    MulticastHandled = 201, "MULTICAST_HANDLED", "Multicast handled";
    HostNotReady = 202, "DROP_HOST_NOT_READY", "Host datapath not ready";
    EndpointNotReady = 203, "DROP_EP_NOT_READY", "Endpoint policy program not available";
    NoEgressIp = 204, "DROP_NO_EGRESS_IP", "No Egress IP configured";
    PuntProxy = 205, "DROP_PUNT_PROXY", "Punt to proxy";
    NoDevice = 206, "DROP_NO_DEVICE", "No device";
    FragmentNotFoundWorld = 207, "DROP_FRAG_NOT_FOUND_WORLD", "First logical datagram fragment not found from world";
}

impl DropReason {
    /// Its number, as events and counters carry it.
    #[inline(always)]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// What a packet that was not dropped is counted as.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
#[non_exhaustive]
pub enum ForwardReason {
    /// Handled and forwarded (or answered).
    Forwarded = 0,
    /// Not for an endpoint of ours: left alone.
    Interface = 3,
    /// A call to a service found no row at its slot.
    NoBackendSlot = 5,
    /// A call to a service found no backend.
    NoBackend = 6,
    /// A call to a service could not be noted, so that who called would not be told whom.
    RevNatUpdate = 7,
    /// A fragment behind the first.
    Fragment = 9,
    /// Answered with an ICMP error that tells the path's MTU.
    MtuError = 15,
}

impl ForwardReason {
    /// The reason with this number.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Forwarded,
            3 => Self::Interface,
            5 => Self::NoBackendSlot,
            6 => Self::NoBackend,
            7 => Self::RevNatUpdate,
            9 => Self::Fragment,
            15 => Self::MtuError,
            _ => return None,
        })
    }

    /// Text for people and counters.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Forwarded => "Success",
            Self::Interface => "Interface",
            Self::NoBackendSlot => "LB, sock cgroup: No backend slot entry found",
            Self::NoBackend => "LB, sock cgroup: No backend entry found",
            Self::RevNatUpdate => "LB, sock cgroup: Reverse entry update failed",
            Self::Fragment => "Fragmented packet",
            Self::MtuError => "MTU error message",
        }
    }
}

/// Text of a counter's reason, drop or not.
pub fn reason_text(number: u8) -> Option<&'static str> {
    DropReason::from_number(number)
        .map(DropReason::text)
        .or_else(|| ForwardReason::from_number(number).map(ForwardReason::text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_hubbles() {
        for (reason, number, name, text) in [
            (DropReason::InvalidSourceIp, 132, "INVALID_SOURCE_IP", "Invalid source ip"),
            (DropReason::PolicyDenied, 133, "POLICY_DENIED", "Policy denied"),
            (DropReason::UnknownTarget, 150, "UNKNOWN_L3_TARGET_ADDRESS", "Unknown L3 target address"),
            (DropReason::CtCreateFailed, 155, "CT_MAP_INSERTION_FAILED", "CT: Map insertion failed"),
            (DropReason::ForbiddenIcmp6, 176, "FORBIDDEN_ICMPV6_MESSAGE", "Forbidden ICMPv6 message"),
            (DropReason::TtlExceeded, 196, "TTL_EXCEEDED", "TTL exceeded"),
        ] {
            assert_eq!((reason.number(), reason.name(), reason.text()), (number, name, text));
        }
    }

    #[test]
    fn numbers_have_no_holes_and_come_back() {
        for (reason, number) in DropReason::ALL.iter().zip(130_u8..) {
            assert_eq!(reason.number(), number);
            assert_eq!(DropReason::from_number(number), Some(*reason));
        }
        assert_eq!(DropReason::ALL.len(), 78);
    }
}
