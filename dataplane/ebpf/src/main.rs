#![no_std]
#![no_main]
//! The kernel host of the dataplane.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
