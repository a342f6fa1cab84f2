//! RECV and SEND of one client: only SEND holds the send key, so what RECV has to say to the
//! client goes through SEND. SEND says nothing; its end closes when it is gone.
//!
//! | message | from | how often |
//! |---|---|---|
//! | `Control` | RECV | at most one for each line that the client sent, or the keeper's word |
//! | `Last` | RECV | once, last: SEND delivers it and ends |

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// To SEND. A control line may have a ticket, so all are wiped.
#[derive(Debug, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub enum ToSend {
    /// A control line for the client.
    Control(String),
    /// The last control line: deliver it and end.
    Last(String),
}
