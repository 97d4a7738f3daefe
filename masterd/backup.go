package masterd

import (
	"context"
	"io"

	"go.uber.org/zap"

	"rolekey/cluster"
	"rolekey/internal/audit"
	"rolekey/internal/buildinfo"
	"rolekey/masterd/backup"
	"rolekey/pki"
	"rolekey/rpc"
)

// backUp gives the state and the signed maps, encrypted before they leave this
// process. Any candidate can whose log holds the newest map that it knows.
func (d *Daemon) backUp(ctx context.Context, r *rpc.BackupRequest) (any, func(io.Writer) error, error) {
	b, fresh, err := d.backupNow(r.Recipients)
	d.audit.Write(audit.Event{Act: audit.Backup, Caller: audit.CallerOf(ctx), Count: int64(len(r.Recipients))}.Of(err))
	if err != nil {
		return nil, nil, err
	}
	about := rpc.BackupReply{Version: b.Header.Version, Hash: b.Header.Hash, Index: b.Header.Index, Fresh: fresh}
	return about, func(w io.Writer) error {
		err := writeBackup(w, b, r.Recipients)
		if err != nil {
			d.log.Warn("a backup was cut off", zap.Error(err))
		}
		return err
	}, nil
}

func (d *Daemon) backupNow(recipients []string) (*backup.Backup, bool, error) {
	m, err := d.running()
	if err != nil {
		return nil, false, err
	}
	if err := pki.CheckRecipients(recipients); err != nil {
		return nil, false, cluster.Errorf(cluster.CodeBadFormat, "%v", err)
	}
	view, stats := m.keeper.View(), m.node.Stats()
	st := m.node.State() // at least what the index says
	if _, ok := st.Entry(view.At()); !ok {
		return nil, false, cluster.Errorf(cluster.CodeUnavailable, "this candidate's state does not hold map %s yet", view.At()).
			WithHint("run the command on the master, or again in a moment")
	}
	b := &backup.Backup{State: st, Maps: append(m.keeper.Chain(), view.Map.Envelope), Header: backup.Header{
		Cluster: st.Cluster.UUID, Name: st.Cluster.Name, Created: d.cfg.Now().UTC(), Node: m.self.name(),
		Index: stats.AppliedIndex, Term: stats.Term, Version: view.At(), Hash: view.Map.Hash,
		Nodes: len(st.Nodes), FeatureLevel: st.FeatureLevel, Software: buildinfo.Version(),
	}}
	return b, m.keeper.Fresh(), nil
}

func writeBackup(w io.Writer, b *backup.Backup, recipients []string) error {
	sealed, err := pki.EncryptTo(w, recipients)
	if err != nil {
		return err
	}
	if err := backup.Write(sealed, b); err != nil {
		return err
	}
	return sealed.Close()
}
