//! What a guest process gives up before its first instruction. The order matters: each step needs
//! something that the next takes away.
