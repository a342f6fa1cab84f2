//! RECV and SEND of one client: only SEND holds the send key, so what RECV has to say to the
//! client goes through SEND. SEND says nothing; its end closes when it is gone.
//!
//! | message | from | how often |
//! |---|---|---|
//! | `Control` | RECV | at most one for each line that the client sent, or the keeper's word |
//! | `Last` | RECV | once, last: SEND delivers it and ends |

use serde::{Deserialize, Serialize};

/// To SEND.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToSend {
    /// A control line for the client.
    Control(String),
    /// The last control line: deliver it and end.
    Last(String),
}
