//! What Consul talks about: the nouns, the commands that change them, the questions one may ask.
