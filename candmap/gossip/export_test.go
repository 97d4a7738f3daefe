package gossip

// Receive is what memberlist calls with a user message.
func Receive(g *Gossip, msg []byte) { g.receive(msg) }

// Waiting counts the messages that nobody judged yet.
func Waiting(g *Gossip) int {
	g.in.mu.Lock()
	defer g.in.mu.Unlock()
	return len(g.in.msgs)
}

// Enqueue queues any message, whatever its size.
func Enqueue(g *Gossip, msg []byte) { g.out.queue.QueueBroadcast(broadcast(msg)) }

// Queued counts the messages that memberlist has still to send.
func Queued(g *Gossip) int { return g.out.queue.NumQueued() }
