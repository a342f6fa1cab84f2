//! What client and server say to each other: frames, ciphers, handshake, commands, events. Pure.
