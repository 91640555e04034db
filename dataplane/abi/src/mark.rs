//! Marks on packets (`skb->mark`), with the meaning they have in Cilium, so that rules made for it keep working.

use crate::Identity;

/// Bits that say what a mark is.
pub const MAGIC_MASK: u32 = 0x0F00;
/// To the proxy; the port is in the upper 16 bits.
pub const TO_PROXY: u32 = 0x0200;
/// Source address already translated.
pub const SNAT_DONE: u32 = 0x0300;
/// From the proxy on the ingress side; carries an identity.
pub const PROXY_INGRESS: u32 = 0x0A00;
/// From the proxy on the egress side; carries an identity.
pub const PROXY_EGRESS: u32 = 0x0B00;
/// From the host's own stack.
pub const HOST: u32 = 0x0C00;
/// Carries an identity.
pub const IDENTITY: u32 = 0x0F00;

/// A mark of the given kind that carries an identity: its low 16 bits in bits 31–16, its next 8 bits in bits 7–0.
#[inline(always)]
pub const fn with_identity(magic: u32, identity: Identity) -> u32 {
    magic | (identity.0 << 16) | ((identity.0 >> 16) & 0xFF)
}

/// The identity in a mark, if it is of a kind that carries one.
#[inline(always)]
pub const fn identity(mark: u32) -> Option<Identity> {
    match mark & MAGIC_MASK {
        HOST => Some(Identity::HOST),
        IDENTITY | PROXY_INGRESS | PROXY_EGRESS => Some(Identity((mark >> 16) | ((mark & 0xFF) << 16))),
        _ => None,
    }
}
