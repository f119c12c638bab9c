package pgcatalog

import (
	"github.com/millrace/millrace/sql"
)

// ownerOID is the number of the one user, who owns everything.
const ownerOID = 10

// databaseOID is the number of the one database, by whatever name it is called.
const databaseOID = 16000

// heapOID is the access method of tables.
const heapOID = 2

// settingsColumns are those of pg_settings, and of the function that gives its rows.
const settingsColumns = `name:text setting:text unit:text? category:text short_desc:text extra_desc:text?
			context:text vartype:text source:text min_val:text? max_val:text? enumvals:text[] boot_val:text? reset_val:text?
			sourcefile:text? sourceline:int4? pending_restart:bool`

// systemTables are those of pg_catalog. Of what Millrace doesn't have the tables are there, and empty.
func systemTables() []*definition {
	return append([]*definition{
		define("pg_catalog.pg_namespace", 2615, "oid:oid nspname:name nspowner:oid nspacl:aclitem[]", fillNamespaces),
		define("pg_catalog.pg_class", 1259, `oid:oid relname:name relnamespace:oid reltype:oid reloftype:oid relowner:oid relam:oid
			relfilenode:oid reltablespace:oid relpages:int4 reltuples:float4 relallvisible:int4 reltoastrelid:oid relhasindex:bool
			relisshared:bool relpersistence:char relkind:char relnatts:int2 relchecks:int2 relhasrules:bool relhastriggers:bool
			relhassubclass:bool relrowsecurity:bool relforcerowsecurity:bool relispopulated:bool relreplident:char relispartition:bool
			relrewrite:oid relfrozenxid:xid relminmxid:xid relacl:aclitem[] reloptions:text[] relpartbound:pg_node_tree?`, fillClasses),
		define("pg_catalog.pg_attribute", 1249, `attrelid:oid attname:name atttypid:oid attstattarget:int4 attlen:int2 attnum:int2
			attndims:int4 attcacheoff:int4 atttypmod:int4 attbyval:bool attalign:char attstorage:char attcompression:char attnotnull:bool
			atthasdef:bool atthasmissing:bool attidentity:char attgenerated:char attisdropped:bool attislocal:bool attinhcount:int4
			attcollation:oid attacl:aclitem[] attoptions:text[] attfdwoptions:text[] attmissingval:text?`, fillAttributes),
		define("pg_catalog.pg_type", 1247, `oid:oid typname:name typnamespace:oid typowner:oid typlen:int2 typbyval:bool typtype:char
			typcategory:char typispreferred:bool typisdefined:bool typdelim:char typrelid:oid typsubscript:regproc typelem:oid typarray:oid
			typinput:regproc typoutput:regproc typreceive:regproc typsend:regproc typmodin:regproc typmodout:regproc typanalyze:regproc
			typalign:char typstorage:char typnotnull:bool typbasetype:oid typtypmod:int4 typndims:int4 typcollation:oid
			typdefaultbin:pg_node_tree? typdefault:text? typacl:aclitem[]`, fillTypes),
		define("pg_catalog.pg_database", 1262, `oid:oid datname:name datdba:oid encoding:int4 datlocprovider:char datistemplate:bool
			datallowconn:bool datconnlimit:int4 datfrozenxid:xid datminmxid:xid dattablespace:oid datcollate:text datctype:text
			daticulocale:text? datcollversion:text? datacl:aclitem[] datlastsysoid:oid`, fillDatabases),
		define("pg_catalog.pg_roles", 0, `rolname:name rolsuper:bool rolinherit:bool rolcreaterole:bool rolcreatedb:bool rolcanlogin:bool
			rolreplication:bool rolconnlimit:int4 rolpassword:text? rolvaliduntil:timestamptz? rolbypassrls:bool rolconfig:text[] oid:oid`, fillRoles),
		define("pg_catalog.pg_authid", 1260, `oid:oid rolname:name rolsuper:bool rolinherit:bool rolcreaterole:bool rolcreatedb:bool
			rolcanlogin:bool rolreplication:bool rolbypassrls:bool rolconnlimit:int4 rolpassword:text? rolvaliduntil:timestamptz?`, fillRoles),
		define("pg_catalog.pg_user", 0, `usename:name usesysid:oid usecreatedb:bool usesuper:bool userepl:bool usebypassrls:bool
			passwd:text? valuntil:timestamptz? useconfig:text[]`, fillUsers),
		define("pg_catalog.pg_am", 2601, "oid:oid amname:name amhandler:regproc amtype:char", fillMethods),
		define("pg_catalog.pg_tablespace", 1213, "oid:oid spcname:name spcowner:oid spcacl:aclitem[] spcoptions:text[]", fillTablespaces),
		define("pg_catalog.pg_collation", 3456, `oid:oid collname:name collnamespace:oid collowner:oid collprovider:char
			collisdeterministic:bool collencoding:int4 collcollate:text? collctype:text? colliculocale:text? collversion:text?`, fillCollations),
		define("pg_catalog.pg_language", 2612, `oid:oid lanname:name lanowner:oid lanispl:bool lanpltrusted:bool lanplcallfoid:oid
			laninline:oid lanvalidator:oid lanacl:aclitem[]`, fillLanguages),
		define("pg_catalog.pg_settings", 0, settingsColumns, fillSettings),
		define("pg_catalog.pg_tables", 0, `schemaname:name tablename:name tableowner:name tablespace:name? hasindexes:bool
			hasrules:bool hastriggers:bool rowsecurity:bool`, fillTables),
		define("pg_catalog.pg_matviews", 0, `schemaname:name matviewname:name matviewowner:name tablespace:name? hasindexes:bool
			ispopulated:bool definition:text`, fillMatviews),
		define("pg_catalog.pg_attrdef", 2604, "oid:oid adrelid:oid adnum:int2 adbin:pg_node_tree", fillDefaults),
		define("pg_catalog.pg_constraint", 2606, `oid:oid conname:name connamespace:oid contype:char condeferrable:bool condeferred:bool convalidated:bool
			conrelid:oid contypid:oid conindid:oid conparentid:oid confrelid:oid confupdtype:char confdeltype:char confmatchtype:char
			conislocal:bool coninhcount:int4 connoinherit:bool conkey:int2[] confkey:int2[] conpfeqop:oid[] conppeqop:oid[] conffeqop:oid[]
			confdelsetcols:int2[] conexclop:oid[] conbin:pg_node_tree?`, fillConstraints),
		define("pg_catalog.pg_index", 2610, `indexrelid:oid indrelid:oid indnatts:int2 indnkeyatts:int2 indisunique:bool indnullsnotdistinct:bool
			indisprimary:bool indisexclusion:bool indimmediate:bool indisclustered:bool indisvalid:bool indcheckxmin:bool indisready:bool
			indislive:bool indisreplident:bool indkey:int2vector indcollation:oidvector indclass:oidvector indoption:int2vector
			indexprs:pg_node_tree? indpred:pg_node_tree?`, fillIndexes),
		define("pg_catalog.pg_indexes", 0, "schemaname:name tablename:name indexname:name tablespace:name? indexdef:text", fillIndexList),
		define("pg_catalog.pg_opclass", 2616, "oid:oid opcmethod:oid opcname:name opcnamespace:oid opcowner:oid opcfamily:oid opcintype:oid opcdefault:bool opckeytype:oid", fillOperatorClasses),
		define("pg_catalog.pg_opfamily", 2753, "oid:oid opfmethod:oid opfname:name opfnamespace:oid opfowner:oid", fillOperatorFamilies),
		define("pg_catalog.pg_proc", 1255, `oid:oid proname:name pronamespace:oid proowner:oid prolang:oid procost:float4 prorows:float4 provariadic:oid
			prokind:char prosecdef:bool proleakproof:bool proisstrict:bool proretset:bool provolatile:char proparallel:char pronargs:int2
			pronargdefaults:int2 prorettype:oid proargtypes:oidvector proallargtypes:oid[] proargmodes:char[] proargnames:text[]
			proargdefaults:pg_node_tree? prosrc:text probin:text? proconfig:text[] proacl:aclitem[] prosqlbody:pg_node_tree?`, fillProcedures),
		define("pg_catalog.pg_show_all_settings()", 0, settingsColumns, fillSettings),
		define("pg_catalog.pg_get_keywords()", 0, "word:text catcode:char barelabel:bool catdesc:text baredesc:text", fillKeywords),
	}, emptySystemTables()...)
}

func fillNamespaces(_ *execution, add func(row)) {
	for _, name := range []string{"pg_catalog", "information_schema", sql.PublicSchema} {
		add(row{"oid": schemaOIDs[name], "nspname": name, "nspowner": int64(ownerOID)})
	}
}

// kindOfRelation is relkind: views are materialized.
func kindOfRelation(r *Relation) string {
	if r.View {
		return "m"
	}
	return "r"
}

func fillClasses(x *execution, add func(row)) {
	for _, r := range x.src.Relations() {
		add(row{
			"oid": r.OID(), "relname": r.Name, "relnamespace": schemaOIDs[sql.PublicSchema], "relowner": int64(ownerOID), "relam": int64(heapOID),
			"reltuples": float64(-1), "relpersistence": "p", "relkind": kindOfRelation(&r), "relnatts": int64(len(r.Columns)),
			"relispopulated": true, "relreplident": "d", "relhasindex": len(r.indexes()) > 0,
		})
		for _, ix := range r.indexes() {
			add(row{
				"oid": ix.oid, "relname": ix.name, "relnamespace": schemaOIDs[sql.PublicSchema], "relowner": int64(ownerOID), "relam": int64(btreeOID),
				"reltuples": float64(-1), "relpersistence": "p", "relkind": "i", "relnatts": int64(len(ix.columns)), "relispopulated": true, "relreplident": "n",
			})
		}
	}
	for _, d := range inOrder() {
		kind := "r"
		if d.schema == "information_schema" {
			kind = "v"
		}
		add(row{
			"oid": d.oid, "relname": d.relname, "relnamespace": schemaOIDs[d.schema], "relowner": int64(ownerOID), "reltuples": float64(-1),
			"relpersistence": "p", "relkind": kind, "relnatts": int64(len(d.cols)), "relispopulated": true, "relreplident": "n",
		})
	}
}

func fillAttributes(x *execution, add func(row)) {
	attribute := func(rel int64, i int, name string, typ uint32, notNull, hasDefault bool) {
		var t typeInfo
		for _, known := range types {
			if known.oid == typ {
				t = known
			}
		}
		collation := int64(0)
		if t.category == "S" {
			collation = defaultCollation
		}
		add(row{
			"attrelid": rel, "attname": name, "atttypid": int64(typ), "attstattarget": int64(-1), "attlen": t.length, "attnum": int64(i + 1),
			"attcacheoff": int64(-1), "atttypmod": int64(-1), "attalign": "d", "attstorage": "p", "attislocal": true, "attcollation": collation,
			"attnotnull": notNull, "atthasdef": hasDefault, "attndims": dimensionsOf(typ),
		})
	}
	for _, r := range x.src.Relations() {
		for i, f := range r.Columns {
			attribute(r.OID(), i, f.Name, oidOf(f.Type), r.NotNull != nil && r.NotNull[i], r.Defaults != nil && r.Defaults[i] != "")
		}
		for _, ix := range r.indexes() {
			for i, c := range ix.columns {
				attribute(ix.oid, i, r.Columns[c].Name, oidOf(r.Columns[c].Type), false, false)
			}
		}
	}
	for _, d := range inOrder() {
		for i, c := range d.cols {
			attribute(d.oid, i, c.Name, c.OID, false, false)
		}
	}
}

const defaultCollation = 100

// dimensionsOf is attndims: arrays are declared with one.
func dimensionsOf(typ uint32) int64 {
	if elementOf(typ) != 0 {
		return 1
	}
	return 0
}

func fillTypes(_ *execution, add func(row)) {
	for _, t := range types {
		kind := "b"
		if t.category == "P" || t.category == "X" {
			kind = "p"
		}
		collation := int64(0)
		if t.category == "S" {
			collation = defaultCollation
		}
		add(functionsOfTypes[t.oid].set(row{
			"oid": int64(t.oid), "typname": t.name, "typnamespace": schemaOIDs["pg_catalog"], "typowner": int64(ownerOID), "typlen": t.length,
			"typtype": kind, "typcategory": t.category, "typisdefined": true, "typdelim": ",", "typarray": int64(t.array), "typalign": "d",
			"typstorage": "p", "typtypmod": int64(-1), "typcollation": collation, "typelem": int64(elementOf(t.oid)),
		}))
		if t.array != 0 {
			add(arrayFunctions.set(row{
				"oid": int64(t.array), "typname": "_" + t.name, "typnamespace": schemaOIDs["pg_catalog"], "typowner": int64(ownerOID),
				"typlen": int64(-1), "typtype": "b", "typcategory": "A", "typisdefined": true, "typdelim": ",", "typelem": int64(t.oid),
				"typalign": "d", "typstorage": "x", "typtypmod": int64(-1), "typcollation": collation,
			}))
		}
	}
}

func fillDatabases(x *execution, add func(row)) {
	add(row{
		"oid": int64(databaseOID), "datname": x.database, "datdba": int64(ownerOID), "encoding": int64(6), "datlocprovider": "c",
		"datallowconn": true, "datconnlimit": int64(-1), "dattablespace": int64(1663), "datcollate": "C", "datctype": "C",
	})
}

func fillRoles(x *execution, add func(row)) {
	add(row{
		"oid": int64(ownerOID), "rolname": x.user, "rolsuper": true, "rolinherit": true, "rolcreaterole": true, "rolcreatedb": true,
		"rolcanlogin": true, "rolreplication": true, "rolbypassrls": true, "rolconnlimit": int64(-1),
	})
}

func fillUsers(x *execution, add func(row)) {
	add(row{"usename": x.user, "usesysid": int64(ownerOID), "usecreatedb": true, "usesuper": true, "userepl": true, "usebypassrls": true})
}

func fillMethods(_ *execution, add func(row)) {
	add(row{"oid": int64(heapOID), "amname": "heap", "amtype": "t"})
	add(row{"oid": int64(403), "amname": "btree", "amtype": "i"})
}

func fillTablespaces(_ *execution, add func(row)) {
	add(row{"oid": int64(1663), "spcname": "pg_default", "spcowner": int64(ownerOID)})
	add(row{"oid": int64(1664), "spcname": "pg_global", "spcowner": int64(ownerOID)})
}

func fillCollations(_ *execution, add func(row)) {
	add(row{"oid": int64(defaultCollation), "collname": "default", "collnamespace": schemaOIDs["pg_catalog"], "collowner": int64(ownerOID), "collprovider": "d", "collisdeterministic": true, "collencoding": int64(-1)})
	add(row{"oid": int64(950), "collname": "C", "collnamespace": schemaOIDs["pg_catalog"], "collowner": int64(ownerOID), "collprovider": "c", "collisdeterministic": true, "collencoding": int64(-1), "collcollate": "C", "collctype": "C"})
}

func fillLanguages(_ *execution, add func(row)) {
	add(row{"oid": int64(14), "lanname": "sql", "lanowner": int64(ownerOID), "lanpltrusted": true})
	add(row{"oid": int64(internalLanguage), "lanname": "internal", "lanowner": int64(ownerOID)})
}

func fillSettings(x *execution, add func(row)) {
	for _, name := range x.src.Settings() {
		v, _ := x.src.Setting(name)
		add(row{"name": name, "setting": v, "category": "Millrace", "context": "user", "vartype": "string", "source": "session", "reset_val": v})
	}
}

func fillTables(x *execution, add func(row)) {
	for _, r := range x.src.Relations() {
		if !r.View {
			add(row{"schemaname": sql.PublicSchema, "tablename": r.Name, "tableowner": x.user, "hasindexes": len(r.indexes()) > 0})
		}
	}
	for _, d := range inOrder() {
		if d.schema == "pg_catalog" {
			add(row{"schemaname": d.schema, "tablename": d.relname, "tableowner": x.user})
		}
	}
}

func fillMatviews(x *execution, add func(row)) {
	for _, r := range x.src.Relations() {
		if r.View {
			add(row{"schemaname": sql.PublicSchema, "matviewname": r.Name, "matviewowner": x.user, "hasindexes": len(r.indexes()) > 0, "ispopulated": true, "definition": r.Definition})
		}
	}
}

// fillKeywords lists what SQL has here besides the words of PostgreSQL.
func fillKeywords(_ *execution, add func(row)) {
	for _, w := range []string{"subscribe", "stream", "streams", "tick", "tumble", "watermark"} {
		add(row{"word": w, "catcode": "U", "barelabel": true, "catdesc": "unreserved", "baredesc": "can be bare label"})
	}
}

// emptySystemTables are of what Millrace doesn't have, with the columns that clients ask for.
func emptySystemTables() []*definition {
	var out []*definition
	for _, t := range []struct {
		name    string
		oid     int64
		columns string
	}{
		{"pg_aggregate", 2600, "aggfnoid:regproc aggkind:char aggnumdirectargs:int2"},
		{"pg_auth_members", 1261, "roleid:oid member:oid grantor:oid admin_option:bool"},
		{"pg_available_extensions", 0, "name:name default_version:text installed_version:text comment:text"},
		{"pg_cast", 2605, "oid:oid castsource:oid casttarget:oid castfunc:oid castcontext:char castmethod:char"},
		{"pg_conversion", 2607, "oid:oid conname:name connamespace:oid conowner:oid conforencoding:int4 contoencoding:int4 conproc:regproc condefault:bool"},
		{"pg_db_role_setting", 2964, "setdatabase:oid setrole:oid setconfig:text[]"},
		{"pg_default_acl", 826, "oid:oid defaclrole:oid defaclnamespace:oid defaclobjtype:char defaclacl:aclitem[]"},
		{"pg_depend", 2608, "classid:oid objid:oid objsubid:int4 refclassid:oid refobjid:oid refobjsubid:int4 deptype:char"},
		{"pg_description", 2609, "objoid:oid classoid:oid objsubid:int4 description:text"},
		{"pg_enum", 3501, "oid:oid enumtypid:oid enumsortorder:float4 enumlabel:name"},
		{"pg_event_trigger", 3466, "oid:oid evtname:name evtevent:name evtowner:oid evtfoid:oid evtenabled:char evttags:text[]"},
		{"pg_extension", 3079, "oid:oid extname:name extowner:oid extnamespace:oid extrelocatable:bool extversion:text extconfig:oid[] extcondition:text[]"},
		{"pg_foreign_data_wrapper", 2328, "oid:oid fdwname:name fdwowner:oid fdwhandler:oid fdwvalidator:oid fdwacl:aclitem[] fdwoptions:text[]"},
		{"pg_foreign_server", 1417, "oid:oid srvname:name srvowner:oid srvfdw:oid srvtype:text srvversion:text srvacl:aclitem[] srvoptions:text[]"},
		{"pg_foreign_table", 3118, "ftrelid:oid ftserver:oid ftoptions:text[]"},
		{"pg_inherits", 2611, "inhrelid:oid inhparent:oid inhseqno:int4 inhdetachpending:bool"},
		{"pg_locks", 0, "locktype:text database:oid relation:oid pid:int4 mode:text granted:bool"},
		{"pg_amop", 2602, `oid:oid amopfamily:oid amoplefttype:oid amoprighttype:oid amopstrategy:int2 amoppurpose:char amopopr:oid amopmethod:oid
			amopsortfamily:oid`},
		{"pg_amproc", 2603, "oid:oid amprocfamily:oid amproclefttype:oid amprocrighttype:oid amprocnum:int2 amproc:regproc"},
		{"pg_largeobject_metadata", 2995, "oid:oid lomowner:oid lomacl:aclitem[]"},
		{"pg_operator", 2617, `oid:oid oprname:name oprnamespace:oid oprowner:oid oprkind:char oprcanmerge:bool oprcanhash:bool oprleft:oid
			oprright:oid oprresult:oid oprcom:oid oprnegate:oid oprcode:regproc oprrest:regproc oprjoin:regproc`},
		{"pg_partitioned_table", 3350, "partrelid:oid partstrat:char partnatts:int2 partdefid:oid partattrs:int2vector"},
		{"pg_policy", 3256, "oid:oid polname:name polrelid:oid polcmd:char polpermissive:bool polroles:oid[] polqual:pg_node_tree? polwithcheck:pg_node_tree?"},
		{"pg_publication", 6104, "oid:oid pubname:name pubowner:oid puballtables:bool pubinsert:bool pubupdate:bool pubdelete:bool pubtruncate:bool pubviaroot:bool"},
		{"pg_publication_namespace", 6237, "oid:oid pnpubid:oid pnnspid:oid"},
		{"pg_publication_rel", 6106, "oid:oid prpubid:oid prrelid:oid prqual:pg_node_tree? prattrs:int2vector"},
		{"pg_range", 3541, "rngtypid:oid rngsubtype:oid rngmultitypid:oid rngcollation:oid rngsubopc:oid"},
		{"pg_rewrite", 2618, "oid:oid rulename:name ev_class:oid ev_type:char ev_enabled:char is_instead:bool"},
		{"pg_sequence", 2224, "seqrelid:oid seqtypid:oid seqstart:int8 seqincrement:int8 seqmax:int8 seqmin:int8 seqcache:int8 seqcycle:bool"},
		{"pg_shdepend", 1214, "dbid:oid classid:oid objid:oid objsubid:int4 refclassid:oid refobjid:oid deptype:char"},
		{"pg_shdescription", 2396, "objoid:oid classoid:oid description:text"},
		{"pg_seclabel", 3596, "objoid:oid classoid:oid objsubid:int4 provider:text label:text"},
		{"pg_stat_activity", 0, `datid:oid datname:name pid:int4 usesysid:oid usename:name application_name:text client_addr:text? client_port:int4
			backend_start:timestamptz? xact_start:timestamptz? query_start:timestamptz? state_change:timestamptz? wait_event_type:text?
			wait_event:text? state:text query:text backend_type:text`},
		{"pg_stat_database", 0, `datid:oid datname:name numbackends:int4 xact_commit:int8 xact_rollback:int8 blks_read:int8 blks_hit:int8 tup_returned:int8
			tup_fetched:int8 tup_inserted:int8 tup_updated:int8 tup_deleted:int8 conflicts:int8 temp_files:int8 temp_bytes:int8 deadlocks:int8`},
		{"pg_stat_gssapi", 0, "pid:int4 gss_authenticated:bool principal:text encrypted:bool"},
		{"pg_stat_ssl", 0, "pid:int4 ssl:bool version:text cipher:text bits:int4 client_dn:text client_serial:text issuer_dn:text"},
		{"pg_prepared_xacts", 0, "transaction:xid gid:text prepared:timestamptz? owner:name database:name"},
		{"pg_stat_user_tables", 0, "relid:oid schemaname:name relname:name seq_scan:int8 n_live_tup:int8 n_dead_tup:int8"},
		{"pg_statio_user_tables", 0, "relid:oid schemaname:name relname:name heap_blks_read:int8 heap_blks_hit:int8"},
		{"pg_statistic_ext", 3381, "oid:oid stxrelid:oid stxname:name stxnamespace:oid stxowner:oid stxstattarget:int4 stxkeys:int2vector stxkind:char[]"},
		{"pg_subscription", 6100, `oid:oid subdbid:oid subskiplsn:text subname:name subowner:oid subenabled:bool subbinary:bool substream:bool
			subtwophasestate:char subdisableonerr:bool subconninfo:text subslotname:name subsynccommit:text subpublications:text[]`},
		{"pg_subscription_rel", 6102, "srsubid:oid srrelid:oid srsubstate:char"},
		{"pg_trigger", 2620, `oid:oid tgrelid:oid tgparentid:oid tgname:name tgfoid:oid tgtype:int2 tgenabled:char tgisinternal:bool
			tgconstrrelid:oid tgconstrindid:oid tgconstraint:oid tgdeferrable:bool tginitdeferred:bool tgnargs:int2 tgattr:int2vector`},
		{"pg_ts_config", 3602, "oid:oid cfgname:name cfgnamespace:oid cfgowner:oid cfgparser:oid"},
		{"pg_parameter_acl", 6243, "oid:oid parname:text paracl:aclitem[]"},
		{"pg_options_to_table()", 0, "option_name:text option_value:text"},
		{"pg_partition_tree()", 0, "relid:regclass parentrelid:regclass isleaf:bool level:int4"},
		{"pg_ts_parser", 3601, "oid:oid prsname:name prsnamespace:oid prsstart:regproc prstoken:regproc prsend:regproc prsheadline:regproc prslextype:regproc"},
		{"pg_ts_template", 3764, "oid:oid tmplname:name tmplnamespace:oid tmplinit:regproc tmpllexize:regproc"},
		{"pg_ts_dict", 3600, "oid:oid dictname:name dictnamespace:oid dictowner:oid dicttemplate:oid dictinitoption:text?"},
		{"pg_user_mappings", 0, "umid:oid srvid:oid srvname:name umuser:oid usename:name umoptions:text[]"},
		{"pg_views", 0, "schemaname:name viewname:name viewowner:name definition:text"},
		{"pg_sequences", 0, "schemaname:name sequencename:name sequenceowner:name data_type:regtype last_value:int8?"},
	} {
		out = append(out, define("pg_catalog."+t.name, t.oid, t.columns, nil))
	}
	return out
}
