package strictoml

import "testing"

func TestDecode(t *testing.T) {
	type config struct {
		Level string `toml:"level"`
		Ports struct {
			Noded int `toml:"noded"`
		} `toml:"ports"`
	}
	for name, c := range map[string]struct{ text, want string }{
		"good":           {"level = \"info\"\n[ports]\nnoded = 1\n", ""},
		"empty":          {"", ""},
		"unknown key":    {"# a comment\nlevel = \"x\"\nlevl = \"info\"\n", `f.toml:3: unknown key "levl"`},
		"in a table":     {"[ports]\nnoded = 1\nmasterd = 2\n", `f.toml:3: unknown key "ports.masterd"`},
		"unknown table":  {"level = \"x\"\n[port]\n", `f.toml:2: unknown key "port"`},
		"same elsewhere": {"noded = 1\n[ports]\nnoded = 2\n", `f.toml:1: unknown key "noded"`},
		"dotted":         {"ports.x = 1\n", `f.toml:1: unknown key "ports.x"`},
	} {
		t.Run(name, func(t *testing.T) {
			var into config
			got := ""
			if err := Decode("f.toml", c.text, &into); err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestDecodeSyntax(t *testing.T) {
	var into struct{}
	err := Decode("f.toml", "a = 1\nb = = 2\n", &into)
	if err == nil || err.Error()[:9] != "f.toml:2:" {
		t.Errorf("got %v, want an error at line 2", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("a = 1\n[b]\nc = 2\n")
	f.Add("[[x]]\n\"q\" = 1")
	f.Fuzz(func(_ *testing.T, text string) {
		var into struct {
			A int `toml:"a"`
		}
		_ = Decode("f", text, &into) // must not panic
	})
}
