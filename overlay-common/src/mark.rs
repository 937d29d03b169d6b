//! The marks that packets carry from one program to the next. An address would not do in their place, since a
//! container can forge one; a mark does not cross network namespaces.

/// On packets that `uplink_ingress` and `tunnel_ingress` send up to this host through the bridge; the
/// program there takes it off.
pub const TO_HOST: u32 = 0x6f76_6c31;
/// On tunnel packets that `uplink_ingress` leaves to the kernel (fragments, IP options, refusals of
/// `bpf_skb_adjust_room`). `tunnel_ingress` believes nothing that comes without it: whoever can send UDP to this
/// host, a container too, reaches the tunnel device's socket.
pub const FROM_UPLINK: u32 = 0x6f76_6c32;
