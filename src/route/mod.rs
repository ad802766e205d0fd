//! Where an event goes: rules compiled into a prefix trie.
