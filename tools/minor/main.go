// Command minor prints, as JSON, what the kubelet of the Kubernetes release that it is linked with knows: its flags
// and what each writes, the fields of its configuration, its feature gates and its defaults. minor.sh links and runs it.
package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"reflect"
	"sort"
	"strings"

	"github.com/spf13/pflag"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/featuregate"
	logsapi "k8s.io/component-base/logs/api/v1"
	_ "k8s.io/component-base/logs/json/register"
	"k8s.io/kubelet/config/v1beta1"
	kubeletapis "k8s.io/kubelet/pkg/apis"
	"k8s.io/kubernetes/cmd/kubelet/app/options"
	_ "k8s.io/kubernetes/pkg/features"
	"k8s.io/kubernetes/pkg/kubelet/apis/config"
	"k8s.io/kubernetes/pkg/kubelet/apis/config/scheme"
	"k8s.io/kubernetes/pkg/kubelet/eviction"
)

// The last minor that merges drop-ins onto its internal type, whose keys are Go's field names.
const lastInternalMerge = 31

type object = map[string]any

func main() {
	version := os.Args[1]
	var minor int
	_, err := fmt.Sscanf(version, "1.%d.", &minor)
	must(err)
	must(logsapi.AddFeatureGates(utilfeature.DefaultMutableFeatureGate))

	types, named := object{}, object{}
	describe(reflect.TypeOf(v1beta1.KubeletConfiguration{}), types, named)
	gated := gatedDefaults()
	out := object{
		"version":          version,
		"flags":            flags(),
		"types":            types,
		"named":            named,
		"gates":            gates(),
		"dependencies":     dependencies(),
		"defaults":         plainDefaults(gated),
		"gated_defaults":   gated,
		"legacy_defaults":  legacyDefaults(),
		"eviction_hard":    eviction.DefaultEvictionHard,
		"kinds":            kinds(),
		"cipher_suites":    sorted(cliflag.TLSCipherPossibleValues()),
		"tls_versions":     sorted(cliflag.TLSPossibleVersions()),
		"curves":           curves(),
		"labels":           sorted(kubeletapis.KubeletLabels()),
		"label_namespaces": sorted(kubeletapis.KubeletLabelNamespaces()),
	}
	if minor <= lastInternalMerge {
		internal := object{}
		pair(reflect.TypeOf(config.KubeletConfiguration{}), reflect.TypeOf(v1beta1.KubeletConfiguration{}), internal, named)
		out["internal"] = internal
	}
	print(out)
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// print writes one line a member of each member, so that two minors can be compared line by line.
func print(out object) {
	var sections []string
	for _, name := range keys(out) {
		value := reflect.ValueOf(out[name])
		if value.Kind() != reflect.Map || value.Len() == 0 {
			sections = append(sections, text(name)+": "+text(out[name]))
			continue
		}
		var lines []string
		for _, key := range value.MapKeys() {
			lines = append(lines, text(key.String())+": "+text(value.MapIndex(key).Interface()))
		}
		sort.Strings(lines)
		sections = append(sections, text(name)+": {\n"+strings.Join(lines, ",\n")+"\n}")
	}
	fmt.Println("{\n" + strings.Join(sections, ",\n") + "\n}")
}

func text(value any) string {
	var made strings.Builder
	encoder := json.NewEncoder(&made)
	encoder.SetEscapeHTML(false)
	must(encoder.Encode(value))
	return strings.TrimSpace(made.String())
}

func keys[V any](from map[string]V) []string {
	var names []string
	for name := range from {
		names = append(names, name)
	}
	return sorted(names)
}

func sorted(names []string) []string {
	sort.Strings(names)
	return names
}

// flags gives each flag's scope (kubelet, config or global), Go type, and where there are any, the setting it writes, its
// letter, and the default of what only the command line sets.
func flags() object {
	found := object{}
	add := func(scope string, set *pflag.FlagSet) {
		set.VisitAll(func(flag *pflag.Flag) {
			entry := object{"scope": scope, "type": goType(flag)}
			switch scope {
			case "config":
				entry["path"] = written(flag)
			case "kubelet":
				if flag.DefValue != "" {
					entry["default"] = flag.DefValue
				}
			}
			if flag.Shorthand != "" {
				entry["letter"] = flag.Shorthand
			}
			if flag.NoOptDefVal != "" {
				entry["alone"] = flag.NoOptDefVal
			}
			found[flag.Name] = entry
		})
	}
	own := pflag.NewFlagSet("", pflag.ContinueOnError)
	options.NewKubeletFlags().AddFlags(own)
	add("kubelet", own)
	add("config", configFlags(legacy()))
	global := pflag.NewFlagSet("", pflag.ContinueOnError)
	options.AddGlobalFlags(global)
	add("global", global)
	return found
}

func configFlags(onto *config.KubeletConfiguration) *pflag.FlagSet {
	set := pflag.NewFlagSet("", pflag.ContinueOnError)
	set.SetOutput(io.Discard) // each of them is deprecated
	options.AddKubeletConfigFlags(set, onto)
	return set
}

// goType is the Go type behind a flag; of a map of texts also whether one occurrence holds several pairs.
func goType(flag *pflag.Flag) string {
	value := reflect.ValueOf(flag.Value)
	name := strings.TrimPrefix(value.Type().String(), "*")
	if name == "pflag.flagValueWrapper" || name == "*pflag.flagValueWrapper" {
		name = "go." + flag.Value.Type()
	}
	if value.Kind() == reflect.Pointer && value.Elem().Kind() == reflect.Struct {
		if split := value.Elem().FieldByName("NoSplit"); split.IsValid() && split.Bool() {
			name += ".NoSplit"
		}
	}
	return name
}

// written is the setting that a flag writes: the one that differs once it is set.
func written(flag *pflag.Flag) string {
	onto := legacy()
	before := leaves(external(onto))
	must(configFlags(onto).Set(flag.Name, sample(flag)))
	after := leaves(external(onto))
	var paths []string
	for path, value := range after {
		if !reflect.DeepEqual(value, before[path]) {
			paths = append(paths, path)
		}
	}
	for path := range before {
		if _, there := after[path]; !there {
			paths = append(paths, path)
		}
	}
	if len(paths) != 1 {
		panic(fmt.Sprintf("--%s=%s writes %v", flag.Name, sample(flag), paths))
	}
	return paths[0]
}

// sample is a value that the flag takes and does not have yet.
func sample(flag *pflag.Flag) string {
	switch kind := goType(flag); kind {
	case "pflag.boolValue":
		return map[string]string{"true": "false", "false": "true"}[flag.DefValue]
	case "pflag.int32Value", "pflag.int64Value", "v1.verbosityLevelPflag":
		return "77"
	case "pflag.durationValue":
		return "77s"
	case "pflag.stringValue", "pflag.stringSliceValue":
		return "sample"
	case "flag.IPVar":
		return "192.0.2.7"
	case "flag.MapStringBool":
		return "Sample=true"
	case "flag.MapStringString", "flag.MapStringString.NoSplit":
		return "sample=value"
	case "flag.LangleSeparatedMapStringString":
		return "sample<1"
	case "flag.ColonSeparatedMultimapStringString":
		return "sample:value"
	case "flag.ReservedMemoryVar":
		return "0:memory=1Gi"
	case "flag.RegisterWithTaintsVar":
		return "sample=value:NoSchedule"
	case "v1.vmoduleConfigurationPFlag":
		return "sample=3"
	case "resource.QuantityValue":
		return "7"
	default:
		panic(fmt.Sprintf("--%s has the new type %s: give it a sample here, and a parser in shared/kubelet/flagvalues.py", flag.Name, kind))
	}
}

// describe collects the fields of a struct and of those in it: JSON name to Go type, with "!" where an empty value is
// written, too; and the types that stand for others.
func describe(kind reflect.Type, types, named object) {
	switch kind.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		note(kind, named)
		describe(kind.Elem(), types, named)
		return
	case reflect.Struct:
	default:
		note(kind, named)
		return
	}
	if _, done := types[kind.String()]; done || hasOwnForm(kind) {
		return
	}
	fields := object{}
	types[kind.String()] = fields
	for _, field := range flattened(kind) {
		name, always := jsonName(field)
		fields[name] = field.Type.String() + always
		describe(field.Type, types, named)
	}
}

// pair collects the fields of an internal struct: the name that encoding/json gives it, to the JSON name of the same
// setting in the published type and the internal type's Go type.
func pair(kind, published reflect.Type, internal, named object) {
	for kind.Kind() == reflect.Pointer || kind.Kind() == reflect.Slice {
		kind, published = kind.Elem(), published.Elem()
	}
	if _, done := internal[kind.String()]; done || kind.Kind() != reflect.Struct || hasOwnForm(kind) {
		note(kind, named)
		return
	}
	fields := object{}
	internal[kind.String()] = fields
	twins := map[string]reflect.StructField{}
	for _, field := range flattened(published) {
		twins[field.Name] = field
	}
	for _, field := range flattened(kind) {
		name, always := jsonName(field)
		twin, known := twins[field.Name]
		if !known {
			panic(kind.String() + "." + field.Name + " has no published twin")
		}
		public, _ := jsonName(twin)
		fields[name] = []string{public, field.Type.String() + always}
		note(field.Type, named)
		pair(field.Type, twin.Type, internal, named)
	}
}

// note keeps what a named type that is no struct stands for.
func note(kind reflect.Type, named object) {
	if kind.PkgPath() == "" || kind.Kind() == reflect.Struct {
		return
	}
	switch kind.Kind() {
	case reflect.Map:
		named[kind.String()] = "map[" + kind.Key().String() + "]" + kind.Elem().String()
	case reflect.Slice:
		named[kind.String()] = "[]" + kind.Elem().String()
	default:
		named[kind.String()] = kind.Kind().String()
	}
}

func hasOwnForm(kind reflect.Type) bool {
	return reflect.PointerTo(kind).Implements(reflect.TypeOf((*json.Unmarshaler)(nil)).Elem())
}

func flattened(kind reflect.Type) []reflect.StructField {
	var fields []reflect.StructField
	for i := range kind.NumField() {
		field := kind.Field(i)
		if field.Anonymous {
			fields = append(fields, flattened(field.Type)...)
			continue
		}
		fields = append(fields, field)
	}
	return fields
}

func jsonName(field reflect.StructField) (name, always string) {
	name, rest, _ := strings.Cut(field.Tag.Get("json"), ",")
	if name == "" {
		name = field.Name
	}
	if !strings.Contains(rest, "omitempty") {
		always = "!"
	}
	return name, always
}

// gates gives each gate's stage (a alpha, b beta, g GA, d deprecated), its default (+ or -), and ! where it is locked.
func gates() object {
	found := object{}
	for name, spec := range utilfeature.DefaultMutableFeatureGate.GetAll() {
		stage := map[string]string{"ALPHA": "a", "BETA": "b", "": "g", "DEPRECATED": "d", "PRE-ALPHA": "p"}[fmt.Sprint(spec.PreRelease)]
		if stage == "" {
			panic(fmt.Sprintf("%s has the new stage %v", name, spec.PreRelease))
		}
		stage += map[bool]string{true: "+", false: "-"}[spec.Default]
		if spec.LockToDefault {
			stage += "!"
		}
		found[string(name)] = stage
	}
	return found
}

// dependencies gives, from the minor on that knows such, the gates that a gate needs.
func dependencies() object {
	found := object{}
	method := reflect.ValueOf(utilfeature.DefaultMutableFeatureGate).MethodByName("Dependencies")
	if !method.IsValid() {
		return found
	}
	for name, needs := range method.Call(nil)[0].Interface().(map[featuregate.Feature][]featuregate.Feature) {
		if len(needs) > 0 {
			found[string(name)] = needs
		}
	}
	return found
}

func defaulted(gates map[string]bool) *v1beta1.KubeletConfiguration {
	known, _, err := scheme.NewSchemeAndCodecs()
	must(err)
	made := &v1beta1.KubeletConfiguration{FeatureGates: gates}
	known.Default(made)
	made.FeatureGates = nil
	return made
}

// roundTrip is the configuration on its way through the internal type, where some "not set" cannot be kept.
func roundTrip(from *v1beta1.KubeletConfiguration) *v1beta1.KubeletConfiguration {
	known, _, err := scheme.NewSchemeAndCodecs()
	must(err)
	through := &config.KubeletConfiguration{}
	must(known.Convert(from, through, nil))
	return external(through)
}

func external(from *config.KubeletConfiguration) *v1beta1.KubeletConfiguration {
	known, _, err := scheme.NewSchemeAndCodecs()
	must(err)
	made := &v1beta1.KubeletConfiguration{}
	must(known.Convert(from.DeepCopy(), made, nil))
	return made
}

func legacy() *config.KubeletConfiguration {
	made, err := options.NewKubeletConfiguration()
	must(err)
	return made
}

// plainDefaults are those that hold whatever the gates are.
func plainDefaults(gated object) object {
	found := leaves(roundTrip(defaulted(nil)))
	for _, only := range gated {
		for path := range only.(object) {
			delete(found, path)
		}
	}
	return found
}

// legacyDefaults are the settings that differ where there is neither a config file nor a drop-in directory.
func legacyDefaults() object {
	usual, found := leaves(roundTrip(defaulted(nil))), object{}
	for path, value := range leaves(external(legacy())) {
		if !reflect.DeepEqual(value, usual[path]) {
			found[path] = value
		}
	}
	return found
}

// gatedDefaults are, by gate, the defaults that hold only where it is on.
func gatedDefaults() object {
	found := object{}
	for _, name := range keys(gates()) {
		on, ok := tryDefaults(name, true)
		off, also := tryDefaults(name, false)
		if !ok || !also {
			continue // locked, or a gate that needs others: it is none that a default asks for alone
		}
		only := object{}
		for path, value := range on {
			if _, there := off[path]; !there {
				only[path] = value
			}
		}
		if len(only) > 0 && name != "AllAlpha" && name != "AllBeta" {
			found[name] = only
		}
	}
	return found
}

func tryDefaults(gate string, value bool) (found object, ok bool) {
	defer func() { ok = recover() == nil }()
	return leaves(roundTrip(defaulted(map[string]bool{gate: value}))), true
}

// leaves are the settings that are not empty, by path; a pointer to an empty value counts.
func leaves(from *v1beta1.KubeletConfiguration) object {
	found := object{}
	collect(reflect.ValueOf(*from), "", found)
	return found
}

func collect(value reflect.Value, path string, found object) {
	if value.Kind() == reflect.Struct && !hasOwnForm(value.Type()) {
		for _, field := range flattened(value.Type()) {
			name, _ := jsonName(field)
			collect(value.FieldByName(field.Name), strings.TrimPrefix(path+"."+name, "."), found)
		}
		return
	}
	if value.Kind() == reflect.Pointer && !value.IsNil() && value.Elem().Kind() == reflect.Struct && !hasOwnForm(value.Elem().Type()) {
		collect(value.Elem(), path, found)
		return
	}
	if !value.IsZero() {
		found[path] = json.RawMessage(text(value.Interface()))
	}
}

// kinds are the versions and kinds that a config file may have without being unknown.
func kinds() []string {
	known, _, err := scheme.NewSchemeAndCodecs()
	must(err)
	var found []string
	for kind := range known.AllKnownTypes() {
		if kind.Group == v1beta1.GroupName && kind.Version != "__internal" {
			found = append(found, kind.Version+" "+kind.Kind)
		}
	}
	return sorted(found)
}

// curves are the key exchanges that tlsCurvePreferences may name; none where the field is not known.
func curves() []int {
	found := []int{}
	if _, known := reflect.TypeOf(v1beta1.KubeletConfiguration{}).FieldByName("TLSCurvePreferences"); !known {
		return found
	}
	for id := 1; id < 1<<16; id++ {
		if !strings.HasPrefix(tls.CurveID(id).String(), "CurveID(") {
			found = append(found, id)
		}
	}
	return found
}
